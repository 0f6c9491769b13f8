-- Read the shapes of meters that have rollups of their own.
select shape_id, meter, definition::text as definition from tallygate.rollup_shape
where active and definition is not null
