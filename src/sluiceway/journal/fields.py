"""A record as kernels take and give it: a tuple of its header's fields, beside its payload."""

from sluiceway.journal.interface import Record

Fields = tuple[int, int, int, int, int, int, int, int, list[int], str, int]


def fields_of(record: Record) -> Fields:
    return (
        record.signal,
        record.format,
        record.encoding,
        record.decoder_version,
        record.policy_version,
        record.received_ms,
        record.dedup_key,
        record.points_received,
        list(record.points_rejected),
        record.tenant,
        record.age_days,
    )


def record_of(sequence: int, fields: Fields, payload: bytes) -> Record:
    signal, door, encoding, decoder, policy, received_ms, key, received, rejected, tenant, days = (
        fields
    )
    return Record(
        tenant=tenant,
        payload=payload,
        received_ms=received_ms,
        signal=signal,
        format=door,
        encoding=encoding,
        decoder_version=decoder,
        policy_version=policy,
        dedup_key=key,
        points_received=received,
        points_rejected=tuple(rejected),
        age_days=days,
        sequence=sequence,
    )
