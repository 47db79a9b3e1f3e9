module hawser

go 1.26.0
