-- Read which active destinations want which types of message.
select name, types from tallygate.destination where active order by name
