"""Turns captions into text states with CLIP, in chunks of 75 tokens as the kohya programs and the WebUI do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CHUNK = 75  # CLIP has 77 positions: these and one token at either end


def token_chunks(tokenizer: Any, captions: Sequence[str], token_length: int) -> torch.Tensor:
    """Token numbers (B, n, 77) of captions, n = token_length ÷ 75: each chunk begins and ends as a caption does.

    Longer captions are cut off. What is left of the last chunk is filled with the end token, SD 1.x's padding.
    """
    import torch

    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    rows = []
    for ids in tokenizer(list(captions), add_special_tokens=False, verbose=False)["input_ids"]:
        padded = (list(ids) + [end] * token_length)[:token_length]
        chunks = [padded[start : start + CHUNK] for start in range(0, token_length, CHUNK)]
        rows.append([[begin, *chunk, end] for chunk in chunks])
    return torch.tensor(rows)


def encode(text_encoder: Any, chunks: torch.Tensor, clip_skip: int) -> torch.Tensor:
    """Text states (B, 75·n + 2, D) of token numbers (B, n, 77): one begin, the chunks' insides, one end.

    `clip_skip` layers from the end give the states (1: the last); the final norm is applied to them. Differentiable.
    """
    import torch

    batch, count, positions = chunks.shape
    ids = chunks.reshape(batch * count, positions).to(text_encoder.device)
    if clip_skip <= 1:
        states = text_encoder(input_ids=ids).last_hidden_state
    else:
        hidden = text_encoder(input_ids=ids, output_hidden_states=True).hidden_states
        states = text_encoder.final_layer_norm(hidden[-clip_skip])
    if count == 1:
        return states
    states = states.reshape(batch, count, positions, -1)
    inside = states[:, :, 1:-1].flatten(1, 2)
    return torch.cat([states[:, 0, :1], inside, states[:, -1, -1:]], dim=1)
