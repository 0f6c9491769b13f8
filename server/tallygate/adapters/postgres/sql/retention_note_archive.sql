-- Note an archive of a month, with what it came to by tenant and meter.
with archive as (
    insert into tallygate.month_archive
        (archive_id, month, leaf, events, file, format, file_sha256, actor)
    values (
        $1::text, tallygate.instant($2::bigint), $3::text, $4::bigint, $5::text, $6::text,
        $7::text, $8::text
    )
    returning archive_id
)
insert into tallygate.month_archive_usage
    (archive_id, tenant_id, meter, events, count, sum, max, min)
select archive.archive_id, usage.*
from archive, unnest(
    $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::numeric[], $14::bigint[],
    $15::bigint[]
) as usage (tenant_id, meter, events, count, sum, max, min)
