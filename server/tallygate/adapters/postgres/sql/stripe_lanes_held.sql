-- Lock the lanes that a lease holds, in the order in which everybody locks lanes.
select customer
from tallygate.stripe_lane
where lease_token = $1::uuid
order by destination, customer, meter
for update
