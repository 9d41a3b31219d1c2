"""The agent: one session = talk, meter, charge. `talktime_agent.budgeted` is the part other people's agents can use."""
