// Runs gguf-parser-go's estimator over many cases in one process: one JSON object per line in, one per line out.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	parser "github.com/gpustack/gguf-parser-go"
)

// Case is one server: a model file and its settings.
type Case struct {
	Path    string `json:"path"`
	Context int32  `json:"context"`
	Slots   int32  `json:"slots"`
	Batch   int32  `json:"batch"`
	Ubatch  int32  `json:"ubatch"`
	Layers  uint64 `json:"layers"`
	KeyType string `json:"key_type"`
	Flash   bool   `json:"flash"`
	Full    bool   `json:"full_window"`
}

var types = map[string]parser.GGMLType{
	"f16": parser.GGMLTypeF16, "q8_0": parser.GGMLTypeQ8_0, "q4_0": parser.GGMLTypeQ4_0,
}

func options(c Case) []parser.GGUFRunEstimateOption {
	kind := types[c.KeyType]
	found := []parser.GGUFRunEstimateOption{
		parser.WithParallelSize(c.Slots),
		parser.WithLLaMACppContextSize(c.Context),
		parser.WithLLaMACppLogicalBatchSize(c.Batch),
		parser.WithLLaMACppPhysicalBatchSize(c.Ubatch),
		parser.WithLLaMACppOffloadLayers(c.Layers),
		parser.WithLLaMACppCacheKeyType(kind),
		parser.WithLLaMACppCacheValueType(kind),
	}
	if c.Flash {
		found = append(found, parser.WithFlashAttention())
	}
	if c.Full {
		found = append(found, parser.WithLLaMACppFullSizeSWACache())
	}
	return found
}

func main() {
	files := map[string]*parser.GGUFFile{}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var c Case
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			panic(err)
		}
		file := files[c.Path]
		if file == nil {
			read, err := parser.ParseGGUFFile(c.Path)
			if err != nil {
				fmt.Println("-1")
				continue
			}
			file = read
			files[c.Path] = file
		}
		item := file.EstimateLLaMACppRun(options(c)...).SummarizeItem(true, 0, 0)
		var total uint64
		for _, v := range item.VRAMs {
			total += uint64(v.NonUMA)
		}
		fmt.Println(total)
	}
}
