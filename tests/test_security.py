"""Nothing that is read is executed, nothing is written elsewhere, and no secret is let out."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import check_out

from conceptcaps import embedders, musiccaps
from conceptcaps.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
CODE = sorted([*(ROOT / "workflow").rglob("*.py"), *(ROOT / "docs").glob("*.py")])
SECRETS = {
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{40,}",
    "AWS key": r"\b(AKIA|ASIA)[A-Z0-9]{16}\b",
    "API key": r"\bsk-[A-Za-z0-9_-]{32,}",
    "Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "password in an address": r"\b[a-z]+://[^/\s:@{}]+:[^/\s:@{}]+@",
}


def tracked():
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in filter(None, listed.stdout.split("\0"))]
    return [path for path in paths if path.is_file()]


def secrets(text):
    return [name for name, pattern in SECRETS.items() if re.search(pattern, text)]


def test_no_tracked_file_holds_a_secret():
    for path in tracked():
        found = secrets(path.read_bytes().decode("utf-8", errors="ignore"))
        assert not found, f"{path.relative_to(ROOT)}: {', '.join(found)}. Revoke it."


@pytest.mark.parametrize(
    "text",
    [
        "token = 'hf_" + "a1B2" * 9 + "'",
        "ghp_" + "0aA" * 12,
        "AKIA" + "ABCD" * 4,
        "sk-" + "abcd" * 10,
        "xoxb-" + "1234567890",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "https://user:" + "word@example.org",
    ],
)
def test_the_scan_finds_what_it_looks_for(text):
    assert len(secrets(text)) == 1


def calls():
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path.name, node, ast.unparse(node.func)


def keywords(call):
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def test_code_from_elsewhere_is_never_run():
    for name, call, function in calls():
        where = f"{name}:{call.lineno}: {function}"
        assert keywords(call).get("trust_remote_code", "False") == "False", where
        assert function not in ("eval", "exec", "os.system", "os.popen"), where
        assert function not in ("pickle.load", "pickle.loads", "joblib.load"), where
        if function == "yaml.load":
            assert keywords(call)["Loader"].endswith("SafeLoader"), where
        assert "subprocess" not in function or "shell" not in keywords(call), where


def test_arguments_of_a_subprocess_are_a_list():
    for name, call, function in calls():
        if function in ("subprocess.run", "subprocess.Popen", "subprocess.check_output"):
            first = call.args[0]
            assert isinstance(first, ast.List | ast.Name), f"{name}:{call.lineno}"


def test_weights_are_tensors_only():
    """Safetensors; the one checkpoint that is a pickle may hold tensors and nothing else."""
    classes = "AutoModel", "AutoModelForCausalLM", "ClapModel", "MusicgenForConditionalGeneration"
    models = [f"{name}.from_pretrained" for name in classes]
    seen = set()
    for name, call, function in calls():
        if function == "torch.load":
            assert keywords(call).get("weights_only") == "True", f"{name}:{call.lineno}"
            seen.add("torch.load")
        if function in models:
            assert keywords(call).get("use_safetensors") == "True", f"{name}:{call.lineno}"
            seen.add("from_pretrained")
    assert seen == {"torch.load", "from_pretrained"}


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_with_code_is_refused_and_not_run(tmp_path):
    torch.save({"state_dict": {}, "extra": Payload(tmp_path / "ran")}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="is not a file of weights"):
        embedders.read_weights(tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()
    torch.save({"state_dict": {"module.w": torch.ones(1)}}, tmp_path / "good.pt")
    assert list(embedders.read_weights(tmp_path / "good.pt")) == ["w"]


def test_a_downloaded_table_must_have_its_checksum(tmp_path):
    (tmp_path / "table.csv").write_text("ytid\n")
    source = musiccaps.Source("file", str(tmp_path / "table.csv"), None, "0" * 64, 1)
    with pytest.raises(InputError, match="its sha256 is"):
        musiccaps.retrieve(source, seed=0, output=tmp_path / "clips.parquet")
    assert not (tmp_path / "clips.parquet").exists()


@pytest.mark.parametrize("cell", ["__import__('os').system('touch ran')", "[].__class__"])
def test_a_table_cell_is_data(tmp_path, cell, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="must be a list of quoted texts"):
        musiccaps._aspects({"aspect_list": cell}, "line 2")
    assert not (tmp_path / "ran").exists()


def test_a_token_of_the_environment_stays_there(tmp_path, monkeypatch):
    """A real job, its log, provenance, records and what Snakemake says: none of them has it."""
    token = "hf_" + "Planted4711" * 3
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, token)
    run = check_out(tmp_path / "run")
    small = ["--config", "sources={musiccaps: {rows: 50}}"]
    target = "results/mini/musiccaps/clips.parquet"
    said = run.snakemake("--workflow-profile", "mini", "--verbose", *small, "--", target).stdout
    assert token not in said
    assert (run.directory / target).exists()
    for path in run.directory.rglob("*"):
        if path.is_file() and "resources" not in path.parts:
            assert token.encode() not in path.read_bytes(), path
