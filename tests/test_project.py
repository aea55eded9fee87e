"""The project's own promises: pinned versions, import layers, deployments, one test command."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module, metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGES = ("data_schemas", "infra", "modeling", "stages", "flows", "benchmarks")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {normal(name): version for name, version in pins.items()}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_to_a_version_that_pyproject_admits():
    declared = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
    pins = constraints()
    for text in declared:
        requirement = Requirement(text)
        assert normal(requirement.name) in pins, f"{requirement.name} is not in constraints.txt; run: make lock"
        assert requirement.specifier.contains(pins[normal(requirement.name)], prereleases=True), text


def test_the_pinned_torch_is_the_lower_bound_so_that_ci_runs_it():
    requirement = next(Requirement(text) for text in PROJECT["project"]["dependencies"] if text.startswith("torch"))
    bounds = {bound.operator: Version(bound.version) for bound in requirement.specifier}
    assert bounds == {">=": Version(constraints()["torch"]), "<": Version("3")}
    assert f"torch {constraints()['torch']}" in (ROOT / "README.md").read_text(), "README names the tried version"


def test_what_is_installed_is_what_is_pinned():
    pins = constraints()
    for distribution in metadata.distributions():
        name = normal(distribution.metadata["Name"])
        if name in pins:
            assert distribution.version.split("+")[0] == pins[name], f"{name}; run: make lock"


def test_constraints_are_for_every_machine():
    text = (ROOT / "constraints.txt").read_text()
    assert "+cpu" not in text
    assert "://" not in text
    assert "/" not in text.replace("'make lock'", "")


def test_every_dependency_has_its_line_in_the_decisions():
    decisions = (ROOT / "docs" / "decisions.md").read_text()
    for text in PROJECT["project"]["dependencies"]:
        assert Requirement(text).name in decisions, text


def test_import_layers_hold():
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_plan_needs_no_heavy_import():
    """`headrace plan` answers within a second because stages import torch, ray and prefect only to run."""
    heavy = "sorted({'torch', 'ray', 'prefect'} & set(sys.modules))"
    script = f"import sys, flows.planning.planner, flows.console; print(*{heavy})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_modules_of_pyarrow_are_imported_where_they_are_used():
    """`pa.compute` exists only once another module has imported it, which a worker process may not have done."""
    used = re.compile(r"\b(pa|pyarrow)\.(compute|parquet|csv|json|dataset|feather|fs|flight|orc|acero)\.\w")
    sources = [path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")]
    lines = [(path, line) for path in sources for line in path.read_text().splitlines()]
    assert len(sources) > 200
    assert not [
        (path, line) for path, line in lines if used.search(line) and not line.strip().startswith(("import", "from"))
    ]


def test_every_deployment_names_a_flow_and_every_stage_has_one():
    from stages.registry import STAGES

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert [one["name"] for one in deployments] == ["pipeline", "rerun", *(stage.name for stage in STAGES)]
    for one in deployments:
        path, name = one["entrypoint"].split(":")
        flow = getattr(import_module(path.removesuffix(".py").replace("/", ".")), name)
        assert ("set" if one["name"] == "rerun" else "config") in flow.parameters.properties, one["name"]


def test_the_form_of_a_stage_flow_shows_every_setting():
    from flows.stage_flows import pretrain_flow

    assert "peak_learning_rate" in str(pretrain_flow.parameters.definitions)


def test_docstrings_begin_with_the_thing_or_the_verb():
    packages = [ROOT / name for name in ("flows", "stages", "modeling", "infra", "data_schemas", "benchmarks")]
    files = [path for package in packages for path in package.rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}: {match}"
        for path in files
        for match in re.findall(r'"""(?:Of|What|Which|How) [^\n]*', path.read_text())
    ]
    assert found == [], "see the table of words in CONTRIBUTING.md"


def test_ci_calls_what_the_readme_says():
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("\nmake test")
    assert "make test" in (ROOT / "README.md").read_text()
