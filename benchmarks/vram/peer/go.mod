module labctl.benchmarks/peer

go 1.22

require github.com/gpustack/gguf-parser-go v0.26.3
