"""The durable name of this process as a source of events, kept in its data folder.

Guarantees: the same folder gives the same id over restarts; two processes that start at once on an
empty folder agree on one.
Refuses to know: what is counted under it.
"""

import os
import secrets
from pathlib import Path
from typing import Final

from tallygate.domain.ids import SourceId

ID_BYTES: Final = 8


def source_id(data_dir: Path) -> SourceId:
    """Return the folder's source id, made at first use. Raises OSError when it cannot be kept."""
    path = data_dir / "source_id"
    data_dir.mkdir(parents=True, exist_ok=True)
    draft = data_dir / f"source_id.{os.getpid()}"
    if not path.exists():
        draft.write_text(secrets.token_hex(ID_BYTES))
        try:
            # A link fails where the name is taken: whoever comes first has named the folder.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return SourceId(path.read_text().strip())
