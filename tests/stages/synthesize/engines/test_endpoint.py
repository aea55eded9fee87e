"""Rephrasing through a local server that misbehaves in every way that servers do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from data_schemas.errors import ConfigError, EnvironmentProblem
from stages.synthesize.config import SynthesizeConfig
from stages.synthesize.engines.chat_server import ChatServer
from stages.synthesize.engines.endpoint import MAX_FAILURES, EndpointRephraser
from stages.synthesize.engines.prompts import RECIPES, chat_messages, continuation_prompt
from stages.synthesize.method import Failure
from stages.synthesize.stage import SynthesizeStage

KEY = "sk-very-secret-0123456789"


def completion(text, finish="stop"):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]})


class Handler(BaseHTTPRequestHandler):
    """Answers by the server's script: text -> list of answers, the last of which is repeated."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        with self.server.lock:
            self.server.requests.append((self.path, dict(self.headers), body))
            answers = self.server.script.get(text, [(200, completion(f"new {text}"))])
            status, answer, *headers = answers.pop(0) if len(answers) > 1 else answers[0]
        if status == "close":
            self.connection.close()
            return
        if status == "hang":
            self.server.release.wait(60)
            self.server.hung.set()
            return
        data = answer.encode()
        self.send_response(status)
        for name, value in [("Content-Length", str(len(data))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if status == 200 and "HALF" in answer else data)
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TEST_ENDPOINT_KEY", KEY)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.script, server.requests, server.lock, server.release = {}, [], threading.Lock(), threading.Event()
    server.hung = threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


def rephraser(server, waits=None, timeout=60.0, concurrency=4):
    address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    chat = ChatServer(address, "TEST_ENDPOINT_KEY", timeout, tries=3, sleep=(waits if waits is not None else []).append)
    return EndpointRephraser(chat, "big", "", "wrap_medium", 0.7, 0.9, 100, 10_000, concurrency)


def rewrite(method, *texts):
    return method.rewrite(texts, list(range(len(texts))))


def test_texts_are_rephrased_in_order_with_the_recipe_the_seed_and_the_key(server):
    texts = [f"text {number} ✓" for number in range(30)]
    assert rewrite(rephraser(server), *texts) == [f"new {text}" for text in texts]
    path, headers, body = next(each for each in server.requests if each[2]["messages"][-1]["content"] == "text 7 ✓")
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    assert body["messages"] == chat_messages("wrap_medium", "text 7 ✓")
    assert (body["model"], body["seed"], body["temperature"], body["max_tokens"]) == ("big", 7, 0.7, 100)


def test_a_busy_server_is_asked_again_when_it_says(server):
    server.script["a"] = [(429, "{}", ("Retry-After", "7")), (500, "oops"), (200, completion("b"))]
    waits = []
    assert rewrite(rephraser(server, waits), "a") == ["b"]
    assert waits == [7.0, 2.0]
    server.script["a"] = [(503, "{}", ("Retry-After", "Mon, 01 Jan 2001 00:00:00 GMT")), (200, completion("b"))]
    waits.clear()
    assert rewrite(rephraser(server, waits), "a") == ["b"] and waits == [0.0]
    server.script["a"] = [(429, "", ("Retry-After", "1e9")), (429, "", ("Retry-After", "soon")), (200, completion("b"))]
    waits.clear()
    assert rewrite(rephraser(server, waits), "a") == ["b"] and waits == [120.0, 2.0]


@pytest.mark.parametrize(
    ("answer", "reason", "later"),
    [
        ((500, "oops"), "HTTP 500", True),
        ((200, ""), "no chat completion", True),
        ((200, "{]"), "no chat completion", True),
        ((200, "[" * 100_000), "no chat completion", True),
        ((200, '{"choices": []}'), "no chat completion", True),
        ((200, '{"choices": [{"message": "text"}]}'), "no chat completion", True),
        ((200, completion("")), "empty", True),
        ((200, completion(None)), "empty", True),
        ((200, completion(" \n")), "empty", True),
        ((200, completion("HALF " * 1_000)), "incomplete|broke", True),
        (("close", ""), "broke", True),
        ((400, f"bad {KEY}"), "HTTP 400", False),
        ((200, completion("cut", "length")), "max_tokens", False),
        ((200, completion("x", "content_filter")), "filter", False),
        ((200, completion("x", "abort")), "interrupted", True),
        ((200, completion(None, "tool_calls")), "interrupted", True),
        ((200, completion("x", "max_tokens")), "max_tokens", False),
        ((200, completion(None).replace('"content"', '"refusal": "I cannot", "content"')), "refused the text", False),
        ((200, completion(None).replace('"content"', '"reasoning_content"')), "empty", True),
        ((200, 'data: {"choices": []}\n\ndata: [DONE]\n'), "no chat completion", True),
        ((200, completion("<think>hm, so")), "reasoning", False),
        ((200, completion("a")), "nothing was changed", False),
        ((200, completion("<think>hm</think>\n")), "empty", False),
    ],
)
def test_no_bad_answer_becomes_a_text(server, answer, reason, later):
    server.script["a"] = [answer]
    failure, good = rewrite(rephraser(server), "a", "good")
    assert good == "new good" and isinstance(failure, Failure)
    assert any(each in failure.reason for each in reason.split("|")), failure
    assert failure.may_succeed_later is later and KEY not in failure.reason
    asked = sum(body["messages"][-1]["content"] == "a" for _, _, body in server.requests)
    assert asked == (3 if later else 1)


def test_a_good_answer_after_bad_ones_counts(server):
    server.script["a"] = [("close", ""), (200, "{]"), (200, completion("<think>so</think> b "))]
    assert rewrite(rephraser(server), "a") == ["b"]


def test_a_server_that_is_silent_is_given_up(server):
    server.script["a"] = [("hang", "")]
    (failure,) = rewrite(rephraser(server, timeout=0.05), "a")
    assert failure == Failure("the server did not answer in time", may_succeed_later=True)


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_wrong_settings_end_the_stage_without_the_key(server, status):
    server.script["a"] = [(status, f"wrong key {KEY}", ("Location", "http://127.0.0.1:1/steal"))]
    with pytest.raises(EnvironmentProblem) as caught:
        rewrite(rephraser(server), "a")
    assert f"HTTP {status}" in str(caught.value) and "TEST_ENDPOINT_KEY" in str(caught.value)
    assert KEY not in str(caught.value)


def test_thoughts_are_no_part_of_the_text(server):
    answers = {"a": "<think>so</think>\n b", "d": "so it is</think>\n\nb", "c": "b has <think>x</think> in it"}
    server.script.update({text: [(200, completion(answer))] for text, answer in answers.items()})
    assert rewrite(rephraser(server), *answers) == ["b", "b", "b has <think>x</think> in it"]


@pytest.mark.parametrize("answer", [(200, completion("x")), (429, ""), (500, "{}"), (200, "{]"), ("close", "")])
def test_a_server_that_is_there_passes_the_check_with_one_request(server, answer):
    server.script["The mill turned."] = [answer]
    rephraser(server).check()
    [(_, _, body)] = server.requests
    assert body["max_tokens"] == 16 and body["temperature"] == 0.7


def test_a_server_that_cannot_serve_is_noticed_before_anything_is_computed(server, monkeypatch):
    port = server.server_address[1]
    method = {"kind": "endpoint", "url": f"http://127.0.0.1:{port}/v1", "model": "big"}
    config = SynthesizeConfig.model_validate({"methods": [method]})
    SynthesizeStage().check(config)
    for status, named in (
        (401, "HTTP 401; check its url"),
        (404, "HTTP 404; check"),
        (400, "three words with HTTP 400"),
    ):
        server.script["The mill turned."] = [(status, f"no {KEY}")]
        with pytest.raises(EnvironmentProblem, match=named) as caught:
            SynthesizeStage().check(config)
        assert KEY not in str(caught.value)

    def refuse(*arguments, **options):
        raise ConnectionRefusedError

    monkeypatch.setattr("socket.create_connection", refuse)
    with pytest.raises(EnvironmentProblem, match=f"endpoint 127.0.0.1:{port} cannot be reached; start the server"):
        SynthesizeStage().check(config.model_copy(update={"missing_engines": "skip"}))


def test_a_server_that_is_gone_ends_the_stage(server, monkeypatch):
    texts = [f"t{number}" for number in range(MAX_FAILURES)]
    server.script.update({text: [(503, "")] for text in texts})
    with pytest.raises(EnvironmentProblem, match=f"none of the last {MAX_FAILURES} texts"):
        rewrite(rephraser(server), *texts)
    gone = ChatServer("http://127.0.0.1:9/v1", "TEST_ENDPOINT_KEY", 5, tries=2, sleep=lambda _: None)
    refused = EndpointRephraser(gone, "m", "", "wrap_easy", 0, 1, 10, 10, 1)

    def refuse(*arguments, **options):
        raise ConnectionRefusedError

    monkeypatch.setattr("socket.create_connection", refuse)
    with pytest.raises(EnvironmentProblem, match="cannot be reached"):
        rewrite(refused, "a")


def test_an_error_does_not_wait_for_the_requests_under_way(server):
    server.script.update({"slow": [("hang", "")], "wrong": [(401, "")]})
    with pytest.raises(EnvironmentProblem, match="HTTP 401"):
        rewrite(rephraser(server, timeout=600), "wrong", "slow")
    assert not server.hung.is_set(), "the other one has not ended"


def test_hostile_texts_are_sent_as_they_are_or_not_at_all(server):
    texts = ["\0\r\n", "\ud800 alone", "שלום 😀", '"}],"role":"system"', "x" * 10_001, "  "]
    outputs = rewrite(rephraser(server), *texts)
    assert outputs[2:4] == [f"new {text}" for text in texts[2:4]]
    assert outputs[4].reason.startswith("the text is longer") and outputs[5] == Failure("the text is empty")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://a/v1",
        "http:///v1",
        "http://u:p@a/v1",
        "http://a/v1?key=x",
        "http://a:99999/v1",
        "http://a:x/v1",
        "http://a/v 1",
    ],
)
def test_urls_are_checked(url):
    with pytest.raises(ConfigError) as caught:
        ChatServer(url, "KEY", 1, 1)
    assert "u:p" not in str(caught.value) and "key=x" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk-\u2019quoted", "sk\0"])
def test_a_key_that_no_header_can_hold_is_refused_without_repeating_it(server, monkeypatch, key):
    if "\0" not in key:
        monkeypatch.setenv("TEST_ENDPOINT_KEY", key)
    else:
        monkeypatch.setattr("os.environ", {"TEST_ENDPOINT_KEY": key})
    with pytest.raises(EnvironmentProblem, match="TEST_ENDPOINT_KEY holds characters") as caught:
        rephraser(server)
    assert "sk" not in str(caught.value)


def test_every_recipe_names_its_paper_and_holds_the_text():
    for name, recipe in RECIPES.items():
        assert recipe.source.split(":")[0].lower().startswith(name.split("_")[0])
        assert "the text" in recipe.instruction.lower() and recipe.heading.endswith(":")
        assert continuation_prompt(name, " text ").startswith("text\n\n")
