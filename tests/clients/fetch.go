// Fetches a URL with Go's own client, its standard configuration: gofetch URL [HEADER: VALUE]
// Prints the protocol, the status and the body; exits with 1 if there was no response.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	request, err := http.NewRequest("GET", os.Args[1], nil)
	if err == nil && len(os.Args) > 2 {
		name, value, _ := strings.Cut(os.Args[2], ": ")
		request.Header.Set(name, value)
	}
	var response *http.Response
	if err == nil {
		response, err = http.DefaultClient.Do(request)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(response.Proto, response.StatusCode)
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
