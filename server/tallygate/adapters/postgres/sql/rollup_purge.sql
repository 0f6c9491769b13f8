-- Delete the rollups of up to $1 groups of shapes that are in effect no more.
with gone as (
    select group_id from tallygate.rollup_group join tallygate.rollup_shape using (shape_id)
    where not active
    order by group_id
    limit $1::integer
),
usage as (delete from tallygate.group_usage using gone where group_usage.group_id = gone.group_id),
part as (delete from tallygate.group_part using gone where group_part.group_id = gone.group_id),
level as (delete from tallygate.group_level using gone where group_level.group_id = gone.group_id),
named as (
    delete from tallygate.rollup_group using gone
    where rollup_group.group_id = gone.group_id
    returning 1
)
select count(*) from named
