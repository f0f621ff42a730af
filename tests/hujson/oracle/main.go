// What Tailscale's own parser and Go's JSON decoder make of documents: each comes in as four bytes of length and its text,
// and goes out as four bytes of length and a line: "error: …" or "value: …". Values stand without nesting limits and escapes:
// strings in hexadecimal digits, keys in the order of their bytes.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/tailscale/hujson"
)

func main() {
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	for {
		var length uint32
		if err := binary.Read(in, binary.BigEndian, &length); err == io.EOF {
			return
		} else if err != nil {
			fail(err)
		}
		text := make([]byte, length)
		if _, err := io.ReadFull(in, text); err != nil {
			fail(err)
		}
		answer := judge(text)
		if err := binary.Write(out, binary.BigEndian, uint32(len(answer))); err != nil {
			fail(err)
		}
		if _, err := out.WriteString(answer); err != nil {
			fail(err)
		}
		if err := out.Flush(); err != nil {
			fail(err)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func judge(text []byte) string {
	standard, err := hujson.Standardize(text)
	if err != nil {
		return "error: " + err.Error()
	}
	decoder := json.NewDecoder(bytes.NewReader(standard))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return "error: " + err.Error()
	}
	var out strings.Builder
	out.WriteString("value: ")
	write(&out, value)
	return out.String()
}

func write(out *strings.Builder, value any) {
	switch value := value.(type) {
	case json.Number:
		out.WriteString("#" + value.String())
	case string:
		fmt.Fprintf(out, "'%x'", value)
	case []any:
		out.WriteString("[")
		for _, element := range value {
			write(out, element)
			out.WriteString(",")
		}
		out.WriteString("]")
	case map[string]any:
		out.WriteString("{")
		for _, name := range slices.Sorted(maps.Keys(value)) {
			write(out, name)
			out.WriteString(":")
			write(out, value[name])
			out.WriteString(",")
		}
		out.WriteString("}")
	default:
		fmt.Fprint(out, value)
	}
}
