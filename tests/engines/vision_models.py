"""Tiny random models that see, of several architectures, with SmolLM2's tokenizer; nothing is downloaded for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf

from seedfold.models import EMBEDDED, locate

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}IMAGE{% else %}{{ p['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}


def write_vision(kind: str, folder: Path, dtype: torch.dtype = torch.bfloat16) -> Path:
    """A checkpoint with large random weights, SmolLM2's tokenizer and a processor that resizes and normalises."""
    named = {"image_token": "<image>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = hf.AutoTokenizer.from_pretrained(
        locate(EMBEDDED), extra_special_tokens=named if kind == "gemma3" else {}
    )
    marks = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    image = tokenizer.convert_tokens_to_ids("<image>")
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }
    torch.manual_seed(0)
    template, model, processor = TEMPLATE.replace("IMAGE", "<image>"), None, None
    if kind == "llava":  # tensors have other names in the checkpoint than in memory
        model = hf.LlavaForConditionalGeneration(
            hf.LlavaConfig(
                vision_config=hf.SiglipVisionConfig(**TOWER, patch_size=14, vision_use_head=False),
                text_config=hf.LlamaConfig(**text, tie_word_embeddings=False),
                image_token_id=image,
                vision_feature_layer=-1,
                vision_feature_select_strategy="full",
                tie_word_embeddings=False,
            )
        )
        prepare = hf.SiglipImageProcessorPil(size={"height": 28, "width": 28})
        processor = hf.LlavaProcessor(
            prepare, tokenizer, patch_size=14, vision_feature_select_strategy="full", chat_template=template
        )
    if kind == "idefics3":  # an image is cut into tiles, each between tokens of its own; the head is the embedding
        model = hf.Idefics3ForConditionalGeneration(
            hf.Idefics3Config(
                vision_config=hf.Idefics3VisionConfig(**TOWER, patch_size=7),
                text_config=hf.LlamaConfig(**text),
                image_token_id=image,
                scale_factor=2,
                tie_word_embeddings=True,
                pad_token_id=tokenizer.eos_token_id,
            )
        )
        prepare = hf.Idefics3ImageProcessorPil(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
        processor = hf.Idefics3Processor(prepare, tokenizer, image_seq_len=4, chat_template=template)
    if kind == "gemma3":  # an image's tokens see each other; one layer sees the last 16 tokens only
        model = hf.Gemma3ForConditionalGeneration(
            hf.Gemma3Config(
                vision_config=hf.SiglipVisionConfig(**TOWER, patch_size=7, vision_use_head=False),
                text_config=hf.Gemma3TextConfig(
                    **text,
                    head_dim=16,
                    sliding_window=16,
                    layer_types=["sliding_attention", "full_attention"],
                    tie_word_embeddings=False,
                ),
                tie_word_embeddings=False,
                mm_tokens_per_image=4,
                image_token_index=image,
            )
        )
        prepare = hf.Gemma3ImageProcessorPil(size={"height": 28, "width": 28}, do_pan_and_scan=False)
        template = TEMPLATE.replace("IMAGE", "<start_of_image>")
        processor = hf.Gemma3Processor(prepare, tokenizer, image_seq_length=4, chat_template=template)
    assert model is not None
    assert processor is not None
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if not name.startswith(("model.language_model", "model.text_model", "lm_head")) and parameter.dim() > 1:
                parameter.normal_(0, 0.2)  # their own initialisation is small, or zero: all images would look alike
    model.to(dtype).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def qwen2_vl() -> tuple[Any, Any]:
    """In memory: its processor wants torchvision for video, so that it cannot be loaded from a checkpoint without that."""

    class WithoutVideo(hf.Qwen2VLProcessor):  # type: ignore[misc]
        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return None if argument is None else super().check_argument_for_proper_class(name, argument)

    marks = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"]
    tokenizer = hf.AutoTokenizer.from_pretrained(locate(EMBEDDED))
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    ids = [tokenizer.convert_tokens_to_ids(mark) for mark in marks]
    torch.manual_seed(0)
    shape = hf.Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.3,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0},
        },
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 48, "num_heads": 2, "patch_size": 7, "mlp_ratio": 2},
        vision_start_token_id=ids[0],
        image_token_id=ids[1],
        vision_end_token_id=ids[2],
        video_token_id=ids[3],
    )
    model = hf.Qwen2VLForConditionalGeneration(shape).bfloat16().eval().requires_grad_(False)
    prepare = hf.Qwen2VLImageProcessorPil(patch_size=7, merge_size=2, min_pixels=14 * 14, max_pixels=56 * 56)
    template = TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    return model, WithoutVideo(prepare, tokenizer, None, chat_template=template)
