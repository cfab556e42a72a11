module igpt

go 1.24
