"""What people say to Postdoc and what it answers: events, commands, the goal form, messages, and the GitHub port."""
