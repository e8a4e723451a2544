"""Turns texts into CLIP's states, in chunks of 75 tokens: captions as sd-scripts reads them, prompts as the WebUI does.

A chunk is `[begin] + up to 75 tokens + [end] + padding`, 77 positions. Captions have a fixed number of chunks, joined to
one begin, the insides, one end (75·n + 2 states); prompts as many as they need, each with all of its 77 states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import lcm
from typing import TYPE_CHECKING, Any

from trainer.models.emphasis import parse
from trainer.models.protocol import Cond

if TYPE_CHECKING:
    import torch

CHUNK = 75  # CLIP has 77 positions: these and one token at either end
ANY_LENGTH = 0  # as a token length: a prompt, of as many chunks as it needs
COMMA_BACKTRACK = 20  # the WebUI's: a prompt's chunk rather ends at a comma up to so many tokens back
_COMMA = ",</w>"

Section = list[tuple[str, float]]
Row = list[tuple[int, float]]  # a chunk's tokens and weights, without begin and end


@dataclass(frozen=True)
class Reader:
    """A text encoder, as a family uses it.

    Attributes:
        run: token numbers (N, 77) on the CPU and the place of each row's end token (N,) → states (N, 77, D), and one
            vector for each whole row (N, P) or None. Differentiable.
        pad: the token that fills a chunk after its end; None is the end token again (OpenCLIP's is 0).
    """

    run: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
    pad: int | None = None


@dataclass(frozen=True)
class Chunks:
    """Texts cut into chunks: each an equal number of rows of (token, weight). See `read_texts`."""

    rows: Sequence[Sequence[Row]]
    whole: bool  # every chunk keeps all its 77 states (prompts); else they are joined as captions are

    @property
    def count(self) -> int:
        return len(self.rows[0])

    def ids(self, begin: int, end: int, pad: int | None = None) -> torch.Tensor:
        """Token numbers (B·n, 77) int64; `pad` None is `end`."""
        filler = end if pad is None else pad
        return self._tensor(lambda row: _framed([token for token, _ in row], begin, end, filler))

    def weights(self) -> torch.Tensor:
        """Each token's weight (B·n, 77) float32: 1 where nothing is emphasised."""
        return self._tensor(lambda row: _framed([weight for _, weight in row], 1.0, 1.0, 1.0))

    def ends(self) -> torch.Tensor:
        """The place of each chunk's first end token (B·n,) int64."""
        return self._tensor(lambda row: len(row) + 1)

    def _tensor(self, value: Callable[[Row], Any]) -> torch.Tensor:
        import torch

        return torch.tensor([value(row) for rows in self.rows for row in rows])


def _framed(inside: Sequence[Any], begin: Any, end: Any, pad: Any) -> list[Any]:
    return [begin, *inside, end, *[pad] * (CHUNK - len(inside))]


def encode(
    tokenizer: Any, readers: Sequence[Reader], texts: Sequence[str], token_length: int = CHUNK, weighted: bool = False
) -> Cond:
    """What text encoders say of texts: their states side by side (B, T, D), and the last one's pooled vector, if any.

    T is 75·n + 2 for captions, 77·n for prompts (`token_length` = ANY_LENGTH); `pooled` is of the first chunk. For the
    other arguments see `read_texts`. Differentiable.
    """
    import torch

    chunks = read_texts(tokenizer, texts, token_length, weighted)
    weights, ends = chunks.weights(), chunks.ends()
    states, pooled = [], None
    for reader in readers:
        ids = chunks.ids(tokenizer.bos_token_id, tokenizer.eos_token_id, reader.pad)
        answer, pooled = reader.run(ids, ends)
        states.append(_joined(_weighted(answer, weights), chunks))
    return Cond(torch.cat(states, -1), None if pooled is None else pooled[:: chunks.count])


def read_texts(tokenizer: Any, texts: Sequence[str], token_length: int = CHUNK, weighted: bool = False) -> Chunks:
    """The chunks of texts.

    Args:
        tokenizer: CLIP's.
        texts: captions, or prompts where `token_length` is ANY_LENGTH; at least one.
        token_length: 75, 150 or 225: what is longer is cut off, what is shorter filled. ANY_LENGTH: nothing is cut; all
            are brought to one number of chunks by saying each whole text over again. Attention answers the same to
            states that all stand there twice, so a text is heard as if it were alone (as programs draw it).
        weighted: whether brackets and BREAK in captions mean what they do in the WebUI; in prompts they always do.
    """
    prompts = token_length == ANY_LENGTH
    sections = [parse(text) if prompts or weighted else [[(text, 1.0)]] for text in texts]
    comma = tokenizer.convert_tokens_to_ids(_COMMA) if prompts else None
    rows = [_rows(tokenizer, parts, comma) for parts in sections]
    if prompts:
        common = lcm(*map(len, rows))
        return Chunks([chunks * (common // len(chunks)) for chunks in rows], True)
    count = token_length // CHUNK
    empty: list[Row] = [[]] * count
    return Chunks([(chunks + empty)[:count] for chunks in rows], False)


@dataclass
class _Rows:
    """Chunks being filled. `comma`: the token at which a full chunk rather ends, or None."""

    comma: int | None
    done: list[Row] = field(default_factory=list)
    row: Row = field(default_factory=list)
    after_comma: int = 0  # where in `row` its last comma ends; 0: it has none

    def add(self, token: int, weight: float) -> None:
        if len(self.row) == CHUNK:
            moved = self.row[self.after_comma :] if self._ends_at_comma(token) else []
            self.row = self.row[: CHUNK - len(moved)]
            self.close()
            self.row = moved
        self.row.append((token, weight))
        if token == self.comma:
            self.after_comma = len(self.row)

    def _ends_at_comma(self, token: int) -> bool:
        """Whether the tokens since the last comma move on to the next chunk, so that no phrase is torn apart."""
        return self.after_comma > 0 and token != self.comma and CHUNK - self.after_comma < COMMA_BACKTRACK

    def close(self) -> None:
        self.done.append(self.row)
        self.row, self.after_comma = [], 0


def _rows(tokenizer: Any, sections: Iterable[Section], comma: int | None) -> list[Row]:
    """The chunks of one text: as few as hold it, each section beginning a new one; at least one."""
    rows = _Rows(comma)
    for number, section in enumerate(sections):
        if number:
            rows.close()
        for tokens, weight in _tokens(tokenizer, section):
            for token in tokens:
                rows.add(token, weight)
    if rows.row or not rows.done:
        rows.close()
    return rows.done


def _tokens(tokenizer: Any, section: Section) -> Iterable[tuple[list[int], float]]:
    if not section:
        return []
    ids = tokenizer([text for text, _ in section], add_special_tokens=False, verbose=False)["input_ids"]
    return zip(ids, (weight for _, weight in section), strict=True)


def _joined(states: torch.Tensor, chunks: Chunks) -> torch.Tensor:
    """One row of states (B, T, D) for each text from those of its chunks (B·n, 77, D)."""
    import torch

    apart = states.unflatten(0, (-1, chunks.count))  # (B, n, 77, D)
    if chunks.whole:
        return apart.flatten(1, 2)
    return torch.cat([apart[:, 0, :1], apart[:, :, 1:-1].flatten(1, 2), apart[:, -1, -1:]], dim=1)


def _weighted(states: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """States (N, 77, D) times weights (N, 77), the mean of each chunk brought back to what it was, as the WebUI does.

    The WebUI takes the mean over the equal chunks of a batch of prompts; over each chunk alone it is the same for one
    prompt, and no text changes its neighbours.
    """
    import torch

    emphasised = (weights != 1).any(1)  # (N,)
    if not bool(emphasised.any()):
        return states
    before = states.float().mean((1, 2), keepdim=True)
    strong = states.float() * weights.to(states.device).unsqueeze(-1)
    restored = (strong * (before / strong.mean((1, 2), keepdim=True))).to(states.dtype)
    return torch.where(emphasised.to(states.device)[:, None, None], restored, states)
