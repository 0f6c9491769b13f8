-- Read the plans that some tenant is on.
select distinct plan from tallygate.tenant
