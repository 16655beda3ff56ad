"""Who asks: users and their passwords, sessions, the rate of logins, and what a role may do."""
