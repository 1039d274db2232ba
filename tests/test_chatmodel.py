"""The chat model: what is said when it cannot be loaded, and when memory is not enough."""

import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tiny_models
import torch
from transformers import AutoTokenizer

from conceptcaps import chatmodel
from conceptcaps.errors import InputError


class Gated(BaseHTTPRequestHandler):
    """Answer as the hub does when a licence has not been accepted."""

    def do_HEAD(self):
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to this model is restricted.")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *arguments):
        """Say nothing."""


def test_a_gated_model_says_which_licence_and_which_variable(tmp_path):
    """In a process of its own: where the hub is, is read when its library is imported."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gated)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": "workflow/scripts",
        "NO_PROXY": "127.0.0.1",
    }
    facts = ("meta-llama/gated", "main", "none", "float32", tiny_models.PROMPTS)
    code = (
        "from conceptcaps import chatmodel\n"
        f"base = chatmodel.Base(*{facts})\n"
        "try:\n    chatmodel.load(base)\n"
        "except chatmodel.InputError as error:\n    print('said:', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | hub, capture_output=True)
    server.shutdown()
    said = done.stdout.decode().split("said: ")[1]
    assert "captioner.base.model: meta-llama/gated (revision main) cannot be loaded" in said
    assert "gated" in said.split("cannot be loaded:")[1].lower()
    assert "Llama 3.1 Community License" in said and "HF_TOKEN" in said


def test_a_tokenizer_without_chat_template_is_refused(tmp_path):
    copy = shutil.copytree(tiny_models.llama(), tmp_path / "plain")
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.chat_template = None
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(copy)
    with pytest.raises(InputError, match="no chat template"):
        chatmodel.load(tiny_models.base(model=str(copy)))


def test_a_missing_model_says_what_to_do():
    with pytest.raises(InputError, match=r"captioner\.base\.model.*licence.*HF_TOKEN"):
        chatmodel.load(tiny_models.base(model="nobody/no-such-model", revision="main"))


def test_prompts_are_checked(tmp_path):
    file = tmp_path / "prompts.yaml"
    file.write_text("system: a\ntagged: no place\nuntagged: b\n")
    with pytest.raises(InputError, match=r"\{tags\}"):
        chatmodel.read_prompts(file)
    file.write_text("system: a\n")
    with pytest.raises(InputError, match="exactly the keys"):
        chatmodel.read_prompts(file)


def test_memory_that_runs_out_names_the_setting_to_lower():
    def run_out(error, key="a.batch_size", also=""):
        with chatmodel.memory(key, also):
            error()

    def off_gpu():
        torch.empty(2**60, dtype=torch.uint8)

    def on_gpu():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(InputError, match=r"a\.batch_size: the main memory is not enough.*Lower it"):
        run_out(off_gpu)
    with pytest.raises(InputError, match=r"GPU memory.*Lower it and wait"):
        run_out(on_gpu, also="wait")
    with pytest.raises(RuntimeError, match="cannot be multiplied"):  # nothing else is taken for it
        run_out(lambda: torch.ones(2, 3) @ torch.ones(2, 3))
