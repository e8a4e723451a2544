"""What goes wrong with the hub, as sentences: no such model, a login wanted, no network, a mirror that is none."""

from __future__ import annotations

import errno
from functools import cache

from trainer.errors import AthanorError, BadInput
from trainer.messages import say
from trainer.models.hub import HubId

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_TRY_AGAIN = say("Try again later; what has come already is kept.")
_TOKEN = say(
    "Open its page in a browser, accept its terms if it asks, make a token for reading, and set it as HF_TOKEN "
    "or save it (hf auth login)."
)


@cache
def network_errors() -> tuple[type[Exception], ...]:
    """What a call to the hub may raise by way of the network (the name of the library underneath changes)."""
    from huggingface_hub.errors import HfHubHTTPError

    base = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    return (base, ConnectionError, TimeoutError)


def is_transient(error: Exception) -> bool:
    """Whether it may go better in a moment."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    code = _status(error)
    return not isinstance(error, OfflineModeIsEnabled) and (code is None or code in (408, 429) or code >= 500)


def _status(error: Exception) -> int | None:
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


def as_error(error: Exception, hub_id: HubId, endpoint: str, has_token: bool) -> AthanorError:
    """A failure in words for the user. `endpoint`: the hub's or mirror's address in use."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return BadInput(say("{id} is given only to those who have accepted its terms.", id=str(hub_id)), _TOKEN)
    if isinstance(error, errors.RevisionNotFoundError):
        return BadInput(say("{id}: there is no version of that name.", id=str(hub_id)), say("Leave out the part behind @."))
    if isinstance(error, errors.OfflineModeIsEnabled):
        return AthanorError(
            say("{id} is not on this disk, and the hub may not be asked (HF_HUB_OFFLINE is set).", id=str(hub_id)),
            say("Unset HF_HUB_OFFLINE, or choose a model file."),
        )
    code = _status(error)
    if code is not None:
        return _answered(code, hub_id, endpoint, has_token)
    if isinstance(error, network_errors()):
        return _unreachable(error, hub_id, endpoint)
    if isinstance(error, OSError):
        return _disk(error, hub_id)
    return AthanorError(
        say("{address} answers, but not as the hub does ({reason}).", address=endpoint, reason=_short(error)),
        say("Is it a mirror of the hub (HF_ENDPOINT), or does this network want a login first?"),
    )


def _answered(code: int, hub_id: HubId, endpoint: str, has_token: bool) -> AthanorError:
    if code == 401 and has_token:
        return BadInput(say("Your token does not open {id}, or there is no such model.", id=str(hub_id)), _TOKEN)
    if code in (401, 404):
        return BadInput(
            say("There is no model {id} on the hub, or it is not public.", id=str(hub_id)),
            say("Check its name (or the path, if you meant a file here). A private one needs a token: set HF_TOKEN, or "
                "save it (hf auth login)."),
        )
    if code == 403:
        return BadInput(say("{address} does not give {id} to this token.", address=endpoint, id=str(hub_id)), _TOKEN)
    if code == 429:
        return AthanorError(say("{address} was asked too often.", address=endpoint), _TRY_AGAIN)
    return AthanorError(say("{address} answers with error {code}.", address=endpoint, code=code), _TRY_AGAIN)


def _unreachable(error: Exception, hub_id: HubId, endpoint: str) -> AthanorError:
    if not endpoint.startswith(("http://", "https://")):
        return BadInput(
            say("HF_ENDPOINT is {address}, which is no address.", address=endpoint), say("Begin it with https://.")
        )
    return AthanorError(
        say("{id} could not be fetched: {address} cannot be reached ({reason}).",
            id=str(hub_id), address=endpoint, reason=_short(error)),
        say("Check the network. Where the hub is blocked, set HF_ENDPOINT to a mirror's address, or choose a model file "
            "that was downloaded in another way. What has come already is kept."),
    )  # fmt: skip


def _disk(error: OSError, hub_id: HubId) -> AthanorError:
    if error.errno == errno.ENOSPC:
        return AthanorError(
            say("The disk is full; {id} is not whole yet.", id=str(hub_id)), say("Free some space and start again.")
        )
    where = str(error.filename or "")
    return AthanorError(
        say("{id} cannot be stored ({reason}). {file}", id=str(hub_id), reason=error.strerror or str(error), file=where),
        say("Check the rights of the hub's cache, or have it elsewhere (HF_HOME)."),
    )


def _short(error: Exception) -> str:
    """The first line of an error."""
    text = str(error).strip().partition("\n")[0]
    return text[:160] or type(error).__name__
