package checks

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

// grpcReal starts a server of the official module, which wants a token for
// the service "closed", and which stalls or stops in the middle of a session
// when it is asked for the services of those names.
func grpcReal(t *testing.T, withHealth bool, opts ...grpc.ServerOption) (addr string) {
	stop := func() {}
	guard := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		switch r := req.(*healthpb.HealthCheckRequest); {
		case r.Service == "closed" && !slices.Equal(md.Get("authorization"), []string{"Bearer s3cret-token"}):
			return nil, status.Error(codes.Unauthenticated, "who are you?")
		case r.Service == "owned" && !slices.Equal(md.Get("x-api-key"), []string{"s3cret-key"}):
			return nil, status.Error(codes.PermissionDenied, "not yours")
		case r.Service == "busy":
			return nil, status.Error(codes.Unavailable, "lädt noch")
		case r.Service == "tenant" && !slices.Equal(md.Get("x-tenant"), []string{"a"}):
			return nil, status.Error(codes.InvalidArgument, "no tenant")
		case r.Service == "stalled":
			<-ctx.Done() // the client has gone
			return nil, ctx.Err()
		case r.Service == "stopped":
			go stop()
			<-ctx.Done()
			return nil, ctx.Err()
		case r.Service == "broken":
			panic("broken")
		}
		return next(ctx, req)
	}
	recovered := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (_ any, err error) {
		defer func() {
			if recover() != nil {
				err = status.Error(codes.Internal, "panic")
			}
		}()
		return guard(ctx, req, info, next)
	}
	s := grpc.NewServer(append(opts, grpc.UnaryInterceptor(recovered))...)
	stop = s.Stop
	if withHealth {
		h := health.NewServer()
		h.SetServingStatus("closed", healthpb.HealthCheckResponse_SERVING)
		h.SetServingStatus("owned", healthpb.HealthCheckResponse_SERVING)
		h.SetServingStatus("tenant", healthpb.HealthCheckResponse_SERVING)
		h.SetServingStatus("ill", healthpb.HealthCheckResponse_NOT_SERVING)
		healthpb.RegisterHealthServer(s, h)
	}
	reflection.Register(s)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(ln)
	t.Cleanup(s.Stop)
	return ln.Addr().String()
}

func TestGRPC(t *testing.T) {
	token, wrong := secret(t, "GRPC", "s3cret-token"), secret(t, "GRPC_WRONG", "wr0ng-token")
	addr := grpcReal(t, true)
	secure := grpcReal(t, true, grpc.Creds(credentials.NewServerTLSFromCert(&testCA().leaf)))
	bare := grpcReal(t, false)
	key := secret(t, "GRPC_KEY", "s3cret-key")
	ours := x509.NewCertPool()
	ours.AddCert(testCA().cert)
	mutual := grpcReal(t, true, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{testCA().leaf}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours,
	})))
	stranger := testCA().issue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	clientCert := func(name string, c tls.Certificate) string {
		file := filepath.Join(t.TempDir(), "cert.pem")
		der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err == nil {
			err = os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		ref := secret(t, name, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
		return fmt.Sprintf(`"tls":{"ca":%q,"cert":%q,"key":%q}`, testCA().file, file, ref)
	}
	for _, tt := range []struct {
		name, url, target, want string
		facts                   []string
	}{
		{"server", "grpc://" + addr, ``, "up", []string{"grpc.health == 'SERVING'", "grpc.services.server == 'SERVING'", "grpc.code == 0"}},
		{"tls", "grpcs://" + secure, trustTestCA(), "up", []string{"tls.verified", "tls.alpn == 'h2'"}},
		{"not serving", "grpc://" + addr, `"grpc":{"services":["","ill"]}`, "down mismatch verify", []string{"grpc.services.server == 'SERVING'", "grpc.services.ill == 'NOT_SERVING'"}},
		{"not serving is expected", "grpc://" + addr, `"grpc":{"services":["ill"]},"expect":["grpc.health == 'NOT_SERVING'"]`, "up", nil},
		{"unknown service", "grpc://" + addr, `"grpc":{"services":["nobody"]}`, "down mismatch transfer", []string{"grpc.health == 'SERVICE_UNKNOWN'", "grpc.code == 5"}},
		{"token", "grpc://" + addr, `"grpc":{"services":["closed"],"token":"` + token + `"}`, "up", nil},
		{"no token", "grpc://" + addr, `"grpc":{"services":["closed"]}`, "down denied auth", []string{"grpc.message == 'who are you?'"}},
		{"wrong token", "grpc://" + addr, `"grpc":{"services":["closed"],"token":"` + wrong + `"}`, "down denied auth", nil},
		{"api key", "grpc://" + addr, `"grpc":{"services":["owned"],"secret_metadata":{"x-api-key":"` + key + `"}}`, "up", nil},
		{"wrong api key", "grpc://" + addr, `"grpc":{"services":["owned"],"secret_metadata":{"x-api-key":"` + wrong + `"}}`, "down denied auth", []string{"grpc.code_name == 'PERMISSION_DENIED'", "grpc.message == 'not yours'"}},
		{"certificate", "grpcs://" + mutual, clientCert("GRPC_OURS", testCA().leaf), "up", nil},
		{"no certificate", "grpcs://" + mutual, trustTestCA(), "down denied tls", []string{"error contains 'wants a client certificate'"}},
		{"another's certificate", "grpcs://" + mutual, clientCert("GRPC_STRANGER", stranger), "down denied tls", []string{"error contains 'refuses our client certificate'"}},
		{"metadata", "grpc://" + addr, `"grpc":{"services":["tenant"],"metadata":{"X-Tenant":"a"}}`, "up", nil},
		{"no metadata", "grpc://" + addr, `"grpc":{"services":["tenant"]}`, "down mismatch transfer", []string{"grpc.code_name == 'INVALID_ARGUMENT'"}},
		{"busy", "grpc://" + addr, `"grpc":{"services":["busy"]}`, "down unavailable transfer", []string{"grpc.message == 'lädt noch'"}},
		{"broken", "grpc://" + addr, `"grpc":{"services":["broken"]}`, "down mismatch transfer", []string{"grpc.code_name == 'INTERNAL'"}},
		{"reflection", "grpc://" + addr, `"grpc":{"reflection":true},"expect":["'grpc.health.v1.Health' in grpc.reflection"]`, "up", []string{"len(grpc.reflection) == 3"}},
		{"no health service", "grpc://" + bare, ``, "down mismatch transfer", []string{"grpc.code_name == 'UNIMPLEMENTED'"}},
		{"reflection alone", "grpc://" + bare, `"grpc":{"health":false,"reflection":true}`, "up", []string{"len(grpc.reflection) == 2"}},
		{"nothing to ask", "grpc://" + bare, `"grpc":{"health":false}`, "unknown options prepare", nil},
		{"plain auth", "grpc://192.0.2.1:50051", `"grpc":{"token":"` + token + `"}`, "unknown options prepare", nil},
		{"plain where there is tls", "grpc://" + secure, `"timeout":"500ms"`, "down closed wait", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.url, tt.target).want(t, tt.want, tt.facts...) })
	}
}

// A server that has answered for one service stalls, or is stopped, while it is
// asked for the next.
func TestGRPCMidSession(t *testing.T) {
	for service, want := range map[string]string{"stalled": "down timeout wait", "stopped": "down closed wait"} {
		t.Run(service, func(t *testing.T) {
			res := check(t, "grpc://"+grpcReal(t, true), `"timeout":"500ms","grpc":{"services":["","`+service+`"]}`)
			res.want(t, want, "grpc.services.server == 'SERVING'")
		})
	}
}

// TestGRPCFrames answers over HTTP/2 what a server of the official module
// does not.
func TestGRPCFrames(t *testing.T) {
	const kind = "application/grpc"
	for _, tt := range []struct {
		name, kind, body, trailer, want string
	}{
		{"up", kind, "\x00\x00\x00\x00\x02\x08\x01", "0", "up"},
		{"proto", kind + "+proto", "\x00\x00\x00\x00\x02\x08\x01", "0", "up"},
		{"default status", kind, "\x00\x00\x00\x00\x00", "0", "down mismatch verify"},
		{"page", "text/html", "hello", "", "down protocol transfer"},
		{"no status", kind, "\x00\x00\x00\x00\x02\x08\x01", "", "down protocol transfer"},
		{"no message", kind, "", "0", "down protocol transfer"},
		{"cut", kind, "\x00\x00\x00\x00\x09\x08\x01", "0", "down protocol transfer"},
		{"compressed", kind, "\x01\x00\x00\x00\x02\x08\x01", "0", "down protocol transfer"},
		{"unknown health", kind, "\x00\x00\x00\x00\x02\x08\x09", "0", "down protocol transfer"},
		{"protobuf garbage", kind, "\x00\x00\x00\x00\x02\xff\xff", "0", "down protocol transfer"},
		{"too large", kind, strings.Repeat("\x00", 1<<20+5), "0", "down too-large transfer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := httpServer(t, true, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", tt.kind)
				w.Header().Set("Trailer", "grpc-status")
				io.WriteString(w, tt.body)
				if tt.trailer != "" {
					w.Header().Set("grpc-status", tt.trailer)
				}
			})
			s.Start()
			check(t, strings.Replace(s.URL, "http:", "grpc:", 1), "").want(t, tt.want)
		})
	}
}

// FuzzGRPC checks that fields and messages lie within what was sent.
func FuzzGRPC(f *testing.F) {
	f.Add(grpcFrame(grpcString(nil, 1, "x")))
	f.Add([]byte("\x00\x00\x00\x00\x02\x08\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		messages, err := grpcMessages(b)
		if err != nil {
			return
		}
		var whole []byte
		for _, m := range messages {
			whole = append(whole, grpcFrame(m)...)
			total := 0
			if grpcFields(m, func(_ int, _ uint64, v []byte) { total += 1 + len(v) }) == nil && total > len(m) {
				t.Errorf("%q: fields of %d bytes", m, total)
			}
		}
		if !bytes.Equal(whole, b) {
			t.Errorf("%q: the messages are %q", b, whole)
		}
	})
}
