-- Note that an account is to be told all items of an invoice.
insert into tallygate.stripe_invoice (destination, number, items)
values ($1, $2, $3)
on conflict do nothing
