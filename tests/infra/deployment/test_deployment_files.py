"""The deployment files against the published schemas, and against what this checkout contains."""

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from typer.testing import CliRunner

from flows.cli import app
from flows.config.run_config import apply_overrides, build_run_config

CHECKOUT = Path(__file__).parents[3]
FILES = CHECKOUT / "infra" / "deployment"
SCHEMAS = Path(__file__).with_name("schemas")
RAY_SCHEMA = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FILES / name).read_text())
    return document


def published(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(gzip.decompress((SCHEMAS / f"{name}.json.gz").read_bytes()))
    return schema


KUBERAY = {"kuberay-cluster.yaml": "rayclusters", "kuberay-job.yaml": "rayjobs"}


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_files_fit_the_custom_resources(name: str) -> None:
    jsonschema.validate(load(name), published(KUBERAY[name]))


def test_a_misspelt_field_does_not_fit() -> None:
    job = load("kuberay-job.yaml")
    job["spec"]["rayClusterSpec"]["authOption"] = job["spec"]["rayClusterSpec"].pop("authOptions")
    with pytest.raises(jsonschema.ValidationError, match="authOption"):
        jsonschema.validate(job, published("rayjobs"))


def test_compose_file_fits_the_specification() -> None:
    validator = jsonschema.Draft7Validator(published("compose-spec"))
    compose = load("compose.yaml")
    validator.validate(compose)
    compose["services"]["postgres"]["helthcheck"] = compose["services"]["postgres"].pop("healthcheck")
    assert not validator.is_valid(compose)


def test_cluster_file_fits_the_schema_of_the_launcher() -> None:
    jsonschema.validate(load("ray-cluster.yaml"), json.loads(RAY_SCHEMA.read_text()))


def test_the_launcher_adds_nothing_of_its_own_to_the_image() -> None:
    """Its defaults install a nightly Ray and a boto3 whose botocore the store's client does not work with."""
    prepared = prepare_config(load("ray-cluster.yaml"))
    validate_config(prepared)
    assert not any(prepared[name] for name in ("setup_commands", "head_setup_commands", "worker_setup_commands"))
    image = (FILES / "Containerfile").read_text()
    assert re.search(r'pip install .*-c constraints\.txt -e "\.\[s3\]" boto3', image)
    assert {"openssh-client", "rsync"} <= set(shlex.split(image.split("apt-get install")[1].split("&&")[0]))


def test_machines_with_accelerators_are_there_when_training_counts_them_and_have_the_image_for_them() -> None:
    types = load("ray-cluster.yaml")["available_node_types"]
    assert types["accelerator"]["min_workers"] >= 1
    assert types["accelerator"]["docker"]["worker_image"].endswith(":cuda")
    assert all("ImageId" in of["node_config"] for of in types.values()), "Ray's own is too old for them"


COMMANDS = [
    (path.name, shlex.split(line, comments=True))
    for path in sorted(FILES.iterdir())
    for line in re.findall(r"\bheadrace (?:submit|run) .*", path.read_text())
]


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_commands_in_the_files_are_commands_of_headrace(name: str, command: list[str]) -> None:
    _program, subcommand, *arguments = command
    output = CliRunner().invoke(app, [subcommand, "--help"], env={"COLUMNS": "200"}).output
    assert all(option in output for option in arguments if option.startswith("--"))
    settings = [value for option, value in pairwise(arguments) if option == "--set"]
    values = apply_overrides({"name": "x"}, settings)
    build_run_config(values, name)
    for config in (value for value in arguments if value.startswith("configs/")):
        assert (CHECKOUT / config).is_file()


def cluster_spec(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = load(name)["spec"]
    return spec.get("rayClusterSpec", spec)


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_clusters_have_a_token_a_queue_and_our_version_of_ray(name: str) -> None:
    spec = cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token", "secretName": "headrace-ray"}
    assert f"ray=={spec['rayVersion']}" in (CHECKOUT / "constraints.txt").read_text().splitlines()
    assert "kueue.x-k8s.io/queue-name" in load(name)["metadata"]["labels"]


@pytest.mark.parametrize("name", KUBERAY)
def test_all_of_a_cluster_is_asked_for_at_once(name: str) -> None:
    """Kueue admits what it can count: fixed numbers of workers, and requests of every container."""
    spec = cluster_spec(name)
    for group in spec["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        for container in group["template"]["spec"]["containers"]:
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()


def test_every_secret_of_the_compose_file_must_be_set() -> None:
    text = (FILES / "compose.yaml").read_text()
    example = (FILES / ".env.example").read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required == set(re.findall(r"^(\w+)=$", example, re.MULTILINE))


def test_services_that_others_wait_for_say_when_they_are_ready() -> None:
    services = load("compose.yaml")["services"]
    for service in services.values():
        for other, condition in service.get("depends_on", {}).items():
            assert condition["condition"] != "service_healthy" or "healthcheck" in services[other]


def test_the_image_copies_files_that_exist_and_no_secrets() -> None:
    text = (FILES / "Containerfile").read_text()
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert (CHECKOUT / source).exists()
    assert "**/.env" in (CHECKOUT / ".dockerignore").read_text().splitlines()


def test_prefect_is_prepared_on_a_server_that_is_named(tmp_path: Path) -> None:
    """Without one, Prefect would put everything into a database of its own that no worker sees."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    own |= {"PREFECT_HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = ["sh", str(FILES / "prepare-prefect.sh")]
    done = subprocess.run(script, env=own, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("error: set PREFECT_API_URL to the API of a Prefect server")
