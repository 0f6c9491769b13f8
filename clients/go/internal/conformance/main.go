// Command conformance is this client's driver for the cases that all clients are held to: it reads
// one JSON object per line, does what it says by the public API, and answers each with a line.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

const lineBytesMax = 64 << 20

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve() error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<16), lineBytesMax)
	replies := json.NewEncoder(os.Stdout)
	replies.SetEscapeHTML(false)
	driver := newDriver()
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return fmt.Errorf("not a request: %w", err)
		}
		if asked.Do == "bye" {
			return nil
		}
		reply := driver.answer(&asked)
		reply["id"] = asked.ID
		if err := replies.Encode(reply); err != nil {
			return err
		}
	}
	return lines.Err()
}
