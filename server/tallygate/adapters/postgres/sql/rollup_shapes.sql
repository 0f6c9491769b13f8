-- List the shapes in effect, and whether they have all events there are.
select shape_id, meter, definition::text as definition, complete = '{(,)}'::tstzmultirange as whole
from tallygate.rollup_shape
where active and definition is not null
order by meter
