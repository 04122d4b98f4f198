"""Recovery of a journal's folder when it is opened, before anything is written."""

import uuid

from hedgelock_ingest.journal import schema
from hedgelock_ingest.journal.files import JournalFiles
from hedgelock_ingest.journal.recovery.integrity import examine
from hedgelock_ingest.journal.recovery.rebuild import rebuild, skip_positions_of_lost_end
from hedgelock_ingest.journal.results import Recovery
from hedgelock_ingest.journal.watermark import WatermarkFile


def recover(files: JournalFiles, watermark: WatermarkFile) -> Recovery:
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
    if watermark.journal_id is None and not files.database.exists() and not files.wal.exists():
        _create(files, watermark)
        return Recovery()
    damage, has_watermark = examine(files.database, watermark)
    if not has_watermark:
        findings.append(
            f"{files.watermark.name} is missing or damaged: whether frames at the end are lost is not known"
        )
    if not damage:
        if not has_watermark:
            skip_positions_of_lost_end(files)
        return Recovery(findings=tuple(findings))
    rebuilt = rebuild(files, watermark)
    files.finish()
    watermark.begin(rebuilt.journal_id, last_position=rebuilt.last_position, state_position=rebuilt.state.position)
    return Recovery(
        findings=(*findings, *damage, *rebuilt.sentences),
        lost=rebuilt.lost,
        kept_as=files.put_rebuilt_in_place(),
        state_lost=rebuilt.state_lost,
        new_identity=rebuilt.new_identity,
    )


def _create(files: JournalFiles, watermark: WatermarkFile) -> None:
    journal_id = uuid.uuid4().hex
    schema.create(files.unfinished, journal_id)
    files.finish()
    files.put_rebuilt_in_place()
    watermark.begin(journal_id, last_position=0, state_position=0)
    watermark.note_clean_end()
