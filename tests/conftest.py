"""Tiny models and tokenizers, made in memory: random weights, no download, milliseconds a pass."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: no test needs the net

import hypothesis
import jaxtyping
import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import grail
from grail.data.encode import Encoded

hypothesis.settings.register_profile("grail", deadline=None)  # the first example may import much
hypothesis.settings.load_profile("grail")


@pytest.fixture(autouse=True, scope="session")
def _no_fsync():
    """Wait for no disk: no test takes the power away, and a process that dies loses no write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def _shapes_once(request):
    """Check shapes in every test but those that repeat what the others run (marker repeats)."""
    repeats = request.node.get_closest_marker("repeats") is not None
    was = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", repeats or was)
    yield
    jaxtyping.config.update("jaxtyping_disable", was)


VOCABULARY = 96
WIDTH = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "max_position_embeddings": 512,
}
FAMILIES = {
    "llama": WIDTH,
    "qwen2": WIDTH,
    "gemma": WIDTH,
    "gemma2": WIDTH | {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 12},
    "gpt_neox": WIDTH | {"rotary_pct": 0.5},
    "mistral": WIDTH,
    "gemma3_text": WIDTH | {"query_pre_attn_scalar": 12},
    "gpt_oss": WIDTH | {"num_local_experts": 2, "num_experts_per_tok": 1},
    "gpt2": {"n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 512},
}
"""model_type -> its own settings."""

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _randomise(model, seed):
    """Give every entry a value far from its initial one: norms off 1, biases and LoRA's B off 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(0.2 * noise)
            else:  # a strong adapter would saturate attention: tiny gradients, all rounding
                scale = 0.3 if "lora_" in name else 1.0
                parameter.copy_(noise * scale / parameter.shape[-1] ** 0.5)


def _tiny_model(family="llama", lora=True, tied=None, seed=0, vocabulary=VOCABULARY, **more):
    """Return a model of its own; equal ones are built once and copied, which is twice as fast."""
    key = repr((family, lora, tied, seed, vocabulary, sorted(more.items())))
    if key not in _built:
        _built[key] = _build(family, lora, tied, seed, vocabulary, **more)
    return copy.deepcopy(_built[key])


_built = {}


def _build(family, lora, tied, seed, vocabulary, **more):
    settings = {**FAMILIES[family], **more}
    settings |= {"vocab_size": vocabulary, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if tied is not None:
        settings["tie_word_embeddings"] = tied
    config = AutoConfig.for_model(family, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        if lora:
            named = ["c_attn", "c_proj", "c_fc"] if family == "gpt2" else "all-linear"
            adapter = LoraConfig(
                r=3,
                lora_alpha=6,
                target_modules=named,
                fan_in_fan_out=family == "gpt2",
                task_type="CAUSAL_LM",
            )
            model = get_peft_model(model, adapter)
    _randomise(model, seed)
    return model.float()


def _tiny_tokenizer(bos=True, chat=False, pad=True):
    """One token per byte, so that any text can be encoded and counted by hand."""
    special = ["<pad>", "<bos>", "<eos>", "<|user|>", "<|assistant|>", "<|system|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.add_special_tokens(special)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
        )
    names = {"bos_token": "<bos>", "eos_token": "<eos>"} | ({"pad_token": "<pad>"} if pad else {})
    extra = {"extra_special_tokens": special[3:]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names, **extra)
    if chat:
        tokenizer.chat_template = CHAT
    return tokenizer


def _tiny_rows(count, seed=0, vocabulary=VOCABULARY, prompt=(2, 6), answer=(1, 9)):
    """Encoded samples of different lengths; ids from 3 on (0 to 2 are special)."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        start = draw.randint(*prompt)
        length = start + draw.randint(*answer)
        ids = tuple(draw.randrange(3, vocabulary) for _ in range(length))
        rows.append(Encoded(f"d.unlearn.train.{seed}-{i}", "d", "unlearn", "train", ids, start))
    return rows


@pytest.fixture(scope="session")
def tiny_model():
    """Make a model: ``tiny_model(family, lora=True, tied=None, seed=0, **settings)``, float32."""
    return _tiny_model


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """Make a byte-level tokenizer: ``tiny_tokenizer(bos=True, chat=False, pad=True)``."""
    return _tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_rows():
    """Make encoded samples: ``tiny_rows(count, seed=0, vocabulary=96, prompt=.., answer=..)``."""
    return _tiny_rows


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory):
    """A folder for ``model.name``: Llama, float32, full weights, byte-level tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tokenizer = _tiny_tokenizer()
    _tiny_model(lora=False, tied=False, vocabulary=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SMALL = {
    "data": {"template": "plain", "max_tokens": 64},
    "vanilla": {"epochs": 3, "batch_size": 4, "learning_rate": 0.02, "checkpoint_steps": 2},
    "importance": {"trials": 2, "batch_tokens": 128},
    "unlearning": {
        "epochs": 2,
        "batch_size": 2,
        "learning_rate": 0.01,
        "checkpoint_steps": 2,
        "until": {"row_accuracy": None},
    },
    "evaluation": {"max_new_tokens": 6, "batch_size": 12},
}
"""A run of the tiny model in about a second: every stage, several steps and batches in each."""


def _tiny_data(folder, domains, rows, val):
    """Write distinct rows of four to nine bytes a word; return the ``domains`` section."""
    folder.mkdir(parents=True, exist_ok=True)
    section = {}
    for domain in domains:
        section[domain] = {}
        for side in ("unlearn", "retain"):
            section[domain][side] = {}
            for part, count in (("train", rows), ("val", val)):
                if not count:
                    continue
                draw = random.Random(f"{domain}.{side}.{part}")
                lines = [
                    {
                        "prompt": "".join(draw.choices("abcdefgh", k=draw.randint(6, 12))) + "?",
                        "completion": "".join(draw.choices("nopqrst", k=draw.randint(4, 9))),
                    }
                    for _ in range(count)
                ]
                file = folder / f"{domain}_{side}_{part}.jsonl"
                file.write_text("".join(json.dumps(line) + "\n" for line in lines))
                section[domain][side][part] = str(file)
    return section


def _tiny_config(tmp_path, tiny_model_folder):
    """Return the function that ``tiny_config`` is, for a folder."""

    def make(domains=("privacy", "copyright"), rows=4, val=2, name="run", **sections):
        data = _tiny_data(tmp_path / "data", domains, rows, val)
        general = tmp_path / "data" / "general.jsonl"
        general.write_text('{"prompt": "sun?", "completion": "star"}\n')
        config = {
            "model": {"name": str(tiny_model_folder), "dtype": "float32", "lora": {"r": 2}},
            "domains": data,
            "general": {"train": str(general)},
            **SMALL,
            "output": str(tmp_path / name),
        }
        for key, value in sections.items():
            old = config.get(key)
            config[key] = {**old, **value} if isinstance(old, dict) else value
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        return file

    return make


@pytest.fixture
def tiny_config(tmp_path, tiny_model_folder):
    """Write data and a YAML file for a run of the tiny model: ``tiny_config(..., **sections)``.

    Keyword arguments replace keys inside sections (dictionaries) or values; returns the file. The
    run goes to ``output``, which is ``tmp_path / "run"`` unless given.
    """
    return _tiny_config(tmp_path, tiny_model_folder)


@pytest.fixture(scope="module")
def module_config(tmp_path_factory, tiny_model_folder):
    """The same for a run that the tests of a module have in common; the folder is its own."""
    return _tiny_config(tmp_path_factory.mktemp("module"), tiny_model_folder)


@pytest.fixture(scope="session")
def session_config(tmp_path_factory, tiny_model_folder):
    """The same for runs that many modules have in common."""
    return _tiny_config(tmp_path_factory.mktemp("session"), tiny_model_folder)


SCRIPTS = Path(__file__).parent / "scripts"


class Forks:
    """Processes that start at once: forks of one that has imported grail (``scripts/server.py``).

    Its hashes of text, and with them the order of sets, are not those of this process.
    """

    def __init__(self, nowhere):
        own = os.environ.get("PYTHONHASHSEED")
        environment = os.environ | {
            "PYTHONPATH": str(Path(grail.__file__).parents[1]),
            "PYTHONHASHSEED": "4711" if own != "4711" else "4712",
            "OMP_NUM_THREADS": "1",
            "GIT_DIR": str(nowhere),
        }
        call, pipe = [sys.executable, str(SCRIPTS / "server.py")], subprocess.PIPE
        self.server = subprocess.Popen(call, env=environment, stdin=pipe, stdout=pipe, text=True)

    def start(self, name, *arguments, log, **environment):
        """Let a fork call ``main(*arguments)`` of ``scripts/NAME.py``; return its pid."""
        words = [str(a) if isinstance(a, Path) else a for a in arguments]
        script = str(SCRIPTS / f"{name}.py")
        order = {"script": script, "arguments": words, "log": str(log), "environment": environment}
        return self._ask(order)

    def wait(self, pid):
        """Return the exit code of a fork that was started, once it has ended."""
        return self._ask({"wait": pid})

    def run(self, name, *arguments, log, **environment):
        """Start, wait, and return the exit code; what is said goes to the file ``log``."""
        return self.wait(self.start(name, *arguments, log=log, **environment))

    def close(self):
        with self.server:
            self.server.stdin.close()

    def _ask(self, order):
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


def _script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def script():
    """Import tests/scripts/NAME.py: ``script(name)``."""
    return _script


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """Processes of their own, see ``Forks``."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    made = Forks(tmp_path_factory.mktemp("no-git"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def two_processes(forks):
    """Run tests/scripts/NAME.py in two processes: ``two_processes(name, folder)`` -> its module."""

    def run(name, folder):
        script, log = SCRIPTS / f"{name}.py", folder / "torchrun.log"
        # Not `accelerate launch --cpu`: without MPI it starts one, whatever --num_processes is.
        code = forks.run("torchrun", script, folder, log=log, ACCELERATE_USE_CPU="true")
        assert code == 0, log.read_text()
        return _script(name)

    return run
