"""What can be taken elsewhere: hints, settings of roles, statistics that mend the cause."""
