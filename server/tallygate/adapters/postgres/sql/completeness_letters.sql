-- Count the dead letters that stand for a number of a source.
select count(*) from tallygate.dead_letter where source_seq > 0
