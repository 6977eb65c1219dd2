package e2e

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pup/cmd/internal/realserver"
)

// TestGuides runs what README.md and the guides tell people to do. In a file,
// a fenced block "sh" is run, one with a file name behind its language is
// written to that file, and others are not looked at. The hosts of the
// examples stand for servers of the test.
func TestGuides(t *testing.T) {
	realserver.Need(t, "bash", "jq")
	files, err := filepath.Glob("../../../docs/guide/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "../../../README.md") {
		t.Run(filepath.Base(file), func(t *testing.T) { runGuide(t, file) })
	}
}

func runGuide(t *testing.T, file string) {
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	hosts := strings.NewReplacer(
		"https://www.example.org/", "http://"+serve(t, page)+"/",
		"redis://cache.example.org/", "redis://"+closed(t)+"/",
		"tcp://db.example.org:5432", "tcp://"+closed(t),
		"$USER", me(),
	)
	block := regexp.MustCompile("(?ms)^```(sh|toml)( [^\n]+)?\n(.*?)^```$")
	ran := 0
	for _, m := range block.FindAllSubmatch(src, -1) {
		text := hosts.Replace(string(m[3]))
		if name := strings.TrimSpace(string(m[2])); name != "" {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		ran++
		cmd := exec.Command("bash", "-eu", "-o", "pipefail", "-c", text)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s\n%s", err, text, &out)
		}
		t.Logf("%s\n%s", text, &out)
	}
	if ran == 0 {
		t.Errorf("nothing to run in %s", file)
	}
}

// serve serves connections on loopback until the test ends.
func serve(t *testing.T, f func(net.Conn)) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); f(c) }()
		}
	}()
	return ln.Addr().String()
}

func closed(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// page answers a request with a page.
func page(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if strings.TrimSpace(line) == "" {
			break
		}
	}
	io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 19\r\nConnection: close\r\n\r\n<p>Welcome, all</p>")
}
