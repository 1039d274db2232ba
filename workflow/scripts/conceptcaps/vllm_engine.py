"""Answers of the chat model by vLLM (Kwon et al. 2023), which needs CUDA."""

from transformers import GenerationConfig

from conceptcaps import chatmodel, decoding
from conceptcaps.chatmodel import Base
from conceptcaps.decoding import Answer, Spec
from conceptcaps.errors import InputError

PROMPT_ROOM = 1024  # tokens of the longest prompt
INSTALL = (
    "captioner.generate.engine: vllm is not installed here ({reason}). It needs CUDA and brings a "
    "torch of its own, hence an environment of its own: pip install vllm bitsandbytes, beside this "
    "project's requirements. Or set the engine to transformers."
)


class Vllm:
    """Draw answers with vLLM, the adapter applied by its own LoRA kernels.

    The prompts of a batch share the keys and values of their common beginning. Every request has
    its item's seed, but logits move with what else is decoded: the same seed gives the same answer
    only in the same batch, which is why a shard's batches have fixed boundaries.
    """

    def __init__(self, base: Base, adapter: str | None, spec: Spec):
        """Load the model, with an adapter where one is given.

        Raises:
            InputError: vLLM is not installed, or the model or its adapter cannot be loaded.
        """
        try:
            from vllm import LLM, SamplingParams, TokensPrompt
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise InputError(INSTALL.format(reason=error)) from error
        self.base, self.spec = base, spec
        self.params, self.prompt = SamplingParams, TokensPrompt
        self.tokenizer = chatmodel.load_tokenizer(base)
        self.room = PROMPT_ROOM + spec.max_new_tokens
        options, self.lora = {}, None
        if adapter is not None:
            rank = chatmodel.check_adapter(base, adapter)["r"]
            options = {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
            self.lora = LoRARequest("captioner", 1, str(adapter))
        if base.quantization == "nf4":
            options["quantization"] = "bitsandbytes"  # quantises as it loads: NF4
        with chatmodel.memory("captioner.generate.batch_size"):
            self.model = LLM(
                model=base.model,
                revision=base.revision,
                tokenizer_revision=base.revision,
                dtype=base.dtype,
                max_model_len=self.room,  # the whole context would reserve memory for it
                max_num_seqs=spec.batch_size,
                enable_prefix_caching=True,
                generation_config="vllm",  # no penalty that a model brings along
                seed=0,
                **options,
            )
        known = GenerationConfig.from_pretrained(base.model, revision=base.revision)
        self.stops = chatmodel.stop_tokens(known, self.tokenizer)

    def answer(self, chats: list[list[dict]], seeds: list[int]) -> list[Answer]:
        """Return an answer to each chat; see `decoding.Transformers.answer`."""
        prompts = []
        for chat in chats:
            tokens = chatmodel.encode(self.tokenizer, [chat])["input_ids"][0].tolist()
            decoding.check_room(self.base, self.spec, len(tokens), self.room)
            prompts.append(self.prompt(prompt_token_ids=tokens))
        params = [
            self.params(
                temperature=self.spec.temperature,
                top_p=self.spec.top_p,
                max_tokens=self.spec.max_new_tokens,
                stop_token_ids=self.stops,
                seed=seed,
            )
            for seed in seeds
        ]
        with chatmodel.memory("captioner.generate.batch_size"):
            outputs = self.model.generate(prompts, params, lora_request=self.lora, use_tqdm=False)
        answers = []
        for output in outputs:  # in the order of the prompts
            drawn = output.outputs[0]
            tokens = list(drawn.token_ids)
            if drawn.finish_reason == "stop" and (not tokens or tokens[-1] not in self.stops):
                tokens.append(self.stops[0])  # vLLM may leave the end out
            answers.append(decoding.read(self.tokenizer, tokens, self.stops))
        return answers
