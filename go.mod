module pup

go 1.26.0
