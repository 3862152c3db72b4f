// Classify a picture: `go run classify.go PICTURE [SERVER]`. Needs nothing but Go.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"
)

type answer struct {
	Predictions []struct {
		Label       string
		Probability float64
	}
	Error struct{ Code, Message string }
}

func main() {
	server := "http://127.0.0.1:3000"
	if len(os.Args) > 2 {
		server = os.Args[2]
	}
	picture, err := os.Open(os.Args[1])
	check(err)
	client := http.Client{Timeout: 30 * time.Second}
	response, err := client.Post(server+"/classify?top_k=3", "application/octet-stream", picture)
	check(err)
	defer response.Body.Close()
	var result answer
	check(json.NewDecoder(response.Body).Decode(&result))
	if response.StatusCode != http.StatusOK {
		check(fmt.Errorf("%s: %s", response.Status, result.Error.Message))
	}
	for _, each := range result.Predictions {
		fmt.Printf("%.3f %s\n", each.Probability, each.Label)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
