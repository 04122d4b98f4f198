"""Recovery of a journal's folder when it is opened, before anything is written."""

import uuid

from hedgelock_ingest.journal import schema
from hedgelock_ingest.journal.files import JournalFiles
from hedgelock_ingest.journal.repair.integrity import examine
from hedgelock_ingest.journal.repair.rebuild import rebuild, skip_positions_of_lost_end
from hedgelock_ingest.journal.results import Recovery
from hedgelock_ingest.journal.watermark import WatermarkFile


def recover(files: JournalFiles, mark: WatermarkFile) -> Recovery:
    """
    Put an intact database in place: the existing one, a new one, or one rebuilt from a damaged one.

    Raises:
        JournalDamaged: Another version of this program wrote the database.
        JournalWriteFailed: The disk refused a write; the damaged database stays in place.
    """
    files.discard_unfinished()
    findings: list[str] = []
    if files.rebuilt.exists():
        kept = files.put_rebuilt_in_place()
        findings.append(f"an earlier recovery was interrupted and has been finished; the damaged file is {kept}")
    if mark.journal_id is None and not files.database.exists() and not files.wal.exists():
        _create(files, mark)
        return Recovery()
    damage, is_marked = examine(files.database, mark)
    if not is_marked:
        findings.append(f"{files.mark.name} is missing or damaged: whether frames at the end are lost is not known")
    if not damage:
        if not is_marked:
            skip_positions_of_lost_end(files)
        return Recovery(findings=tuple(findings))
    salvaged = rebuild(files, mark)
    files.finish()
    mark.begin(salvaged.journal_id, last_position=salvaged.last_position, state_position=salvaged.state.position)
    return Recovery(
        findings=(*findings, *damage, *salvaged.sentences),
        lost=salvaged.lost,
        kept_as=files.put_rebuilt_in_place(),
        state_lost=salvaged.state_lost,
        new_identity=salvaged.new_identity,
    )


def _create(files: JournalFiles, mark: WatermarkFile) -> None:
    journal_id = uuid.uuid4().hex
    schema.create(files.unfinished, journal_id)
    files.finish()
    files.put_rebuilt_in_place()
    mark.begin(journal_id, last_position=0, state_position=0)
    mark.note_clean_end()
