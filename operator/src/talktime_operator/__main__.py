"""`python -m talktime_operator`."""

from talktime_operator.main import main

main()
