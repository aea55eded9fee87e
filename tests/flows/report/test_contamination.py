from types import SimpleNamespace

from flows.report.contamination import contamination


def figures(contaminated: int, share: float) -> dict:
    return {"items": 100, "testable": 50, "contaminated": contaminated, "share": share, "documents": contaminated}


def test_the_most_contaminated_come_first_without_their_common_folder():
    by_file = {
        "../b/glue/SST-2/dev.tsv": figures(1, 0.02),
        "/b/x.jsonl": figures(0, 0.0),
        "../b/QNLI.tsv": figures(4, 0.08),
    }
    dedup = SimpleNamespace(
        metrics={"contamination": by_file}, config={"decontaminate": {"action": "drop", "ngram": 13}}
    )
    table = contamination({"dedup": dedup})
    assert table is not None
    assert [(row["benchmark"], row["contaminated"], row["percent"]) for row in table.rows] == [
        ("../b/QNLI.tsv", 4, 8.0), ("../b/glue/SST-2/dev.tsv", 1, 2.0), ("/b/x.jsonl", 0, 0.0),
    ]  # fmt: skip
    del by_file["/b/x.jsonl"]
    table = contamination({"dedup": dedup})
    assert table is not None
    assert [row["benchmark"] for row in table.rows] == ["QNLI.tsv", "glue/SST-2/dev.tsv"]
    assert "dropped" in table.done


def test_no_table_where_nothing_was_looked_for():
    assert contamination({}) is None
    assert contamination({"dedup": SimpleNamespace(metrics={}, config={"decontaminate": None})}) is None
