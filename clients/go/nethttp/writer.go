package nethttp

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// writer notes how a response goes, and passes everything on as it comes.
type writer struct {
	http.ResponseWriter
	begin    func()
	bodiless bool
	status   int
	bytes    int64
}

// Unwrap is for [http.ResponseController].
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// started notes the status, and has the headers written into before they are sent.
func (w *writer) started(status int) {
	if w.status != 0 {
		return
	}
	w.status = status
	w.begin()
}

// WriteHeader passes the status on; informational ones begin nothing.
func (w *writer) WriteHeader(status int) {
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		w.started(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write passes bytes on and counts them.
func (w *writer) Write(out []byte) (int, error) {
	w.started(http.StatusOK)
	written, err := w.ResponseWriter.Write(out)
	w.count(int64(written))
	return written, err
}

// ReadFrom lets files be sent by the system, where the writer below can do so.
func (w *writer) ReadFrom(from io.Reader) (int64, error) {
	w.started(http.StatusOK)
	written, err := io.Copy(w.ResponseWriter, from)
	w.count(written)
	return written, err
}

func (w *writer) count(written int64) {
	if !w.bodiless {
		w.bytes += written
	}
}

// FlushError sends what was written so far.
func (w *writer) FlushError() error {
	w.started(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush is FlushError for those who ask for an [http.Flusher].
func (w *writer) Flush() { _ = w.FlushError() }

// Hijack hands the connection over. What is written to it is not counted.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil && w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, buffered, err
}

// Push passes on, where the connection is of HTTP/2.
func (w *writer) Push(target string, options *http.PushOptions) error {
	if below, ok := w.ResponseWriter.(http.Pusher); ok {
		return below.Push(target, options)
	}
	return http.ErrNotSupported
}
