"""The promises of SECURITY.md: each names a test that exists, and those about the source itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from redepth.bench import Result, Row
from redepth.bench.report import write_report
from redepth.protocols import EvaluationProtocol, ImageMetrics, load_protocol

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
HOSTILE = "<script>alert(1)</script><img src=x onerror='alert(2)'>\"&"

SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PROMISES = re.findall(r"^\| (?!promise|---)(.+?) \| (.+) \|$", SECURITY, re.MULTILINE)


def test_there_are_promises() -> None:
    assert len(PROMISES) > 10


@pytest.mark.parametrize(("promise", "tests"), PROMISES, ids=[promise[:40] for promise, _ in PROMISES])
def test_each_promise_names_tests_that_exist(promise: str, tests: str) -> None:
    named = NAMED.findall(tests)
    assert len(named) == tests.count("::") > 0, promise
    for path, test in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, test


FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "os.startfile",
    "torch.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.safe_load",
    "pickle.load",
    "pickle.loads",
}
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "subprocess", "joblib"}
PRIVATE_FOLDERS = {"tempfile.mkdtemp", "tempfile.TemporaryDirectory"}
"""Of the module tempfile, these alone: only the user may enter what they make."""
ALLOWED = {
    "redepth/checkpoints/pickled.py": ["torch.load", "weights_only=True"],
    "redepth/runtime/component_files.py": ["exec"],
}
"""MoGe's weights have no form but ``model.pt``, which torch's restricted reader reads as data.
``--import FILE.py`` runs the file that the user names."""


def violations(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            shared = name.startswith("tempfile.") and name not in PRIVATE_FOLDERS
            found += [name] if name in FORBIDDEN_CALLS or shared else []
            found += [
                ast.unparse(keyword)
                for keyword in node.keywords
                if (keyword.arg, ast.unparse(keyword.value)) in {("shell", "True"), ("allow_pickle", "True")}
                or keyword.arg in {"trust_remote_code", "weights_only"}
            ]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in FORBIDDEN_MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.ImportFrom) and node.module == "tempfile":
            found.append("names of tempfile")
    return found


def test_the_search_sees_what_it_should() -> None:
    for line in (
        "eval(x)",
        "import pickle",
        "from subprocess import run",
        "tempfile.mktemp()",
        "np.load(x, allow_pickle=True)",
    ):
        assert violations(line), line
    assert not violations("model.eval(); np.load(x, allow_pickle=False)")


def test_the_package_calls_no_shell_and_reads_no_pickle() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): wrong
        for path in sorted((ROOT / "redepth").rglob("*.py"))
        if (wrong := violations(path.read_text(encoding="utf-8")))
    }
    assert found == ALLOWED


ALIGNMENT = {"disparity": "affine-disparity", "depth": "affine-depth"}


def hostile_side(protocol: EvaluationProtocol) -> dict[str, Any]:
    """Return the metrics of an image whose texts are all markup."""
    return ImageMetrics(
        image=HOSTILE,
        protocol=protocol.name,
        protocol_sha256=protocol.sha256,
        metrics={"silog": 2.0, "abs_rel": 0.1},
        means={},
        pixels=1,
        clipped=0.0,
        alignment={},
        height=1,
        width=1,
        unit="m",
        warnings=[HOSTILE],
    ).record()


def test_a_report_shows_names_as_text(tmp_path: Path) -> None:
    protocols = [
        load_protocol({"name": f"{HOSTILE}{k}", "description": HOSTILE, "alignment": ALIGNMENT}) for k in "ab"
    ]
    results = [
        Result(image=HOSTILE, preset=HOSTILE, initial=side, refined=side, diagnostics=[HOSTILE])
        for side in (hostile_side(protocol) for protocol in protocols)
    ]
    preset = SimpleNamespace(model_dump=lambda mode: {"description": HOSTILE})
    run: Any = SimpleNamespace(
        protocols=protocols,
        dataset=HOSTILE,
        images=[HOSTILE],
        presets={HOSTILE: preset},
        seed=0,
        initial_only=False,
    )
    summaries: Any = {protocol.name: {HOSTILE: []} for protocol in protocols}
    page = tmp_path / "report.html"
    rows = {(HOSTILE, HOSTILE): tmp_path / "row.json"}
    write_report(run, [Row.of(results)], summaries, rows, page)
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert(1)" in text
