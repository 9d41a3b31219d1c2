module talktime.dev/pause

go 1.26
