package checks

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"strings"
	"sync"

	"pup/cmd/internal/expr"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/httpconn"
	"pup/cmd/pup-probe/internal/probe"
)

// httpTitleIn is how much of an HTML page is searched for its title, in bytes.
const httpTitleIn = 16 << 10

// An httpScratch is what reading a body takes.
type httpScratch struct {
	buf [8 << 10]byte
	sum hash.Hash
}

var httpScratches = sync.Pool{New: func() any { return &httpScratch{sum: sha256.New()} }}

// readBody reads, decodes and measures the body. It keeps no more of it than
// is going to be judged.
func (s *httpSession) readBody(resp *httpconn.Response) error {
	f, most := s.facts, int64(s.opt.MaxBodyBytes)
	raw := &httpCounter{r: resp.Body, most: 2*most + 64<<10}
	body, done, err := httpDecoded(f.ContentEncoding, raw)
	if err != nil {
		return err
	}
	defer done()
	whole := s.readsBody()
	html := strings.HasPrefix(f.ContentType, "text/html")
	var kept []byte
	var n int64
	scratch := httpScratches.Get().(*httpScratch)
	defer httpScratches.Put(scratch)
	buf, sum := &scratch.buf, scratch.sum
	sum.Reset()
	f.Truncated = new(false)
	f.BodyBytes = &n
	if body != io.Reader(raw) {
		f.CompressedBytes = &raw.n
	}
	for {
		k, err := body.Read(buf[:])
		part := buf[:min(int64(k), most-n)]
		n += int64(len(part))
		sum.Write(part)
		switch {
		case whole:
			kept = append(kept, part...)
		case html && len(kept) < httpTitleIn:
			kept = append(kept, part[:min(len(part), httpTitleIn-len(kept))]...)
		}
		if len(part) < k {
			*f.Truncated = true
			break
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return httpBodyError(f.ContentEncoding, err)
		}
	}
	if !*f.Truncated {
		digest := sum.Sum(buf[:0])
		f.SHA256 = string(hex.AppendEncode(buf[len(digest):len(digest)], digest))
	}
	if html {
		f.Title = httpTitle(kept)
	}
	if whole {
		f.Body = string(kept)
	}
	if s.reads("http.json") && !*f.Truncated {
		f.JSON, _ = expr.Value(kept) // one that is none is absent
	}
	if s.reads("http.trailers") && resp.Trailer != nil {
		f.Trailers = httpTable(resp.Trailer)
	}
	if *f.Truncated && s.opt.FailTooLarge {
		return probe.Failf(wire.TooLarge, "the body has more than the %d bytes of http.max_body_bytes", most)
	}
	return nil
}

// httpBodyError says that a body which can't be decoded is the server's fault,
// unless the connection is.
func httpBodyError(encoding string, err error) error {
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	for _, e := range []error{gzip.ErrHeader, gzip.ErrChecksum, zlib.ErrHeader, zlib.ErrChecksum, zlib.ErrDictionary} {
		corrupt = corrupt || errors.Is(err, e)
	}
	if corrupt {
		return probe.Protocolf("the body is no proper %.20s: %w", encoding, err)
	}
	return err
}

// An httpCounter counts what is read, and ends what takes ever more bytes
// without giving any.
type httpCounter struct {
	r       io.Reader
	n, most int64
}

func (c *httpCounter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if c.n += int64(n); c.n > c.most {
		return 0, probe.Protocolf("more than %d compressed bytes for a body that is smaller", c.most)
	}
	return n, err
}

var (
	httpGzips = sync.Pool{New: func() any { return new(gzip.Reader) }}
	httpBufio = sync.Pool{New: func() any { return bufio.NewReader(nil) }}
)

// httpDecoded gives the body without its content coding (RFC 9110, section
// 8.4.1). Done gives back what was used for it. A coding that we don't know
// stays as it is: its fact says so.
func httpDecoded(encoding string, raw io.Reader) (body io.Reader, done func(), err error) {
	done = func() {}
	encoding = strings.ToLower(encoding)
	if encoding != "gzip" && encoding != "x-gzip" && encoding != "deflate" {
		return raw, done, nil
	}
	br := httpBufio.Get().(*bufio.Reader)
	br.Reset(raw)
	done = func() { br.Reset(nil); httpBufio.Put(br) }
	start, err := br.Peek(2)
	switch {
	case err == io.EOF && len(start) == 0: // nothing, as HEAD and 304 have it
		return raw, done, nil
	case err != nil && err != io.EOF:
		done()
		return nil, nil, err
	case encoding == "deflate" && (len(start) < 2 || start[0]&0x0f != 8 || (int(start[0])<<8|int(start[1]))%31 != 0):
		return flate.NewReader(br), done, nil // as some servers have misunderstood it
	case encoding == "deflate":
		body, err = zlib.NewReader(br)
	default:
		z := httpGzips.Get().(*gzip.Reader)
		body, err = z, z.Reset(br)
		giveBack := done
		done = func() { httpGzips.Put(z); giveBack() }
	}
	if err != nil {
		done()
		return nil, nil, httpBodyError(encoding, err)
	}
	return body, done, nil
}

// httpTitle finds the title of a page.
func httpTitle(page []byte) string {
	lower := bytes.ToLower(page)
	i := bytes.Index(lower, []byte("<title"))
	if i < 0 || len(lower) != len(page) {
		return ""
	}
	start := bytes.IndexByte(page[i:], '>')
	if start < 0 {
		return ""
	}
	start += i + 1
	end := bytes.IndexByte(page[start:], '<')
	if end < 0 {
		return ""
	}
	return ndjson.Cut(strings.Join(strings.Fields(string(page[start:start+end])), " "), 200)
}
