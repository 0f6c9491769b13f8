-- Put another shape of a meter into effect, null for none.
select tallygate.switch_shape($1::text, $2::jsonb)
