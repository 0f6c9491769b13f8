-- Keep writers out while messages change their places; readers are let in.
lock table tallygate.outbox in share row exclusive mode
