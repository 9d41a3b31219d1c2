// Two-party audio rooms against a livekit-server, for bench/density.py: in each room two participants publish Opus-sized
// packets of random bytes every 20 ms (a talk at 32 kbit/s; an SFU does not decode) and receive the other's.
//
// Reads lines from stdin, answers each with one line of JSON:
//
//	join N S    N more rooms, evenly over S seconds -> {"rooms", "failed", "join_ms": [...]}
//	hold S      S seconds of talk in all rooms -> {"rooms", "sent", "received", "lost", "late", "silent"}
//
// join_ms: one per room, from the second participant's dial until it has received the first packet of the other one, who
// is in the room already. sent, received: RTP packets of the hold. lost: sequence numbers that never came. late: packets
// more than 60 ms after the one before them (three packets' time: what a small jitter buffer still hides). silent: tracks
// that brought nothing at all.
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"google.golang.org/protobuf/proto"
)

const (
	frame    = 20 * time.Millisecond
	payload  = 80 // bytes of 20 ms at 32 kbit/s
	lateness = 60 * time.Millisecond
	patience = 10 * time.Second
)

type counts struct{ sent, received, lost, late atomic.Int64 }

type server struct {
	url, key, secret string
	api              *webrtc.API
	way              webrtc.Configuration // how media may go: anyhow, or through one TURN server alone
}

// participant is one connection: the publisher's and the subscriber's peer connection, as LiveKit's clients have them.
type participant struct {
	conn      *websocket.Conn
	writing   sync.Mutex
	publisher *webrtc.PeerConnection
	listener  *webrtc.PeerConnection
	track     *webrtc.TrackLocalStaticSample
	connected chan struct{} // the publisher's media path is there
	heard     chan struct{} // the first packet of the other one has come
	once      sync.Once
	failed    atomic.Pointer[error]
	counts    *counts
	inHold    atomic.Int64
}

func (s *server) join(room, identity string, all *counts) (*participant, error) {
	token, err := auth.NewAccessToken(s.key, s.secret).SetIdentity(identity).
		SetVideoGrant(&auth.VideoGrant{RoomJoin: true, Room: room}).ToJWT()
	if err != nil {
		return nil, err
	}
	address := s.url + "/rtc?protocol=15&auto_subscribe=1&sdk=go&access_token=" + url.QueryEscape(token)
	conn, _, err := websocket.DefaultDialer.Dial(address, nil)
	if err != nil {
		return nil, err
	}
	p := &participant{conn: conn, connected: make(chan struct{}), heard: make(chan struct{}), counts: all}
	if p.publisher, err = s.api.NewPeerConnection(s.way); err != nil {
		return nil, err
	}
	if p.listener, err = s.api.NewPeerConnection(s.way); err != nil {
		return nil, err
	}
	opus := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
	if p.track, err = webrtc.NewTrackLocalStaticSample(opus, "microphone", identity); err != nil {
		return nil, err
	}
	if _, err = p.publisher.AddTrack(p.track); err != nil {
		return nil, err
	}
	p.publisher.OnICECandidate(p.trickle(livekit.SignalTarget_PUBLISHER))
	p.listener.OnICECandidate(p.trickle(livekit.SignalTarget_SUBSCRIBER))
	p.publisher.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateConnected {
			p.once.Do(func() { close(p.connected); go p.talk() })
		}
	})
	p.listener.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { p.listen(track) })
	go p.follow()
	return p, nil
}

func (p *participant) send(request *livekit.SignalRequest) error {
	data, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	return p.conn.WriteMessage(websocket.BinaryMessage, data)
}

func (p *participant) trickle(target livekit.SignalTarget) func(*webrtc.ICECandidate) {
	return func(candidate *webrtc.ICECandidate) {
		if candidate == nil {
			return
		}
		text, _ := json.Marshal(candidate.ToJSON())
		message := &livekit.TrickleRequest{CandidateInit: string(text), Target: target}
		_ = p.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Trickle{Trickle: message}})
	}
}

// follow answers the server's signals until the connection ends.
func (p *participant) follow() {
	for {
		_, data, err := p.conn.ReadMessage()
		if err == nil {
			response := &livekit.SignalResponse{}
			if err = proto.Unmarshal(data, response); err == nil {
				err = p.on(response)
			}
		}
		if err != nil {
			p.failed.Store(&err)
			return
		}
	}
}

func (p *participant) on(response *livekit.SignalResponse) error {
	switch m := response.Message.(type) {
	case *livekit.SignalResponse_Join:
		go p.ping(time.Duration(max(m.Join.PingInterval, 5)) * time.Second)
		track := &livekit.AddTrackRequest{
			Cid: p.track.ID(), Name: "microphone", Type: livekit.TrackType_AUDIO, Source: livekit.TrackSource_MICROPHONE,
		}
		return p.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: track}})
	case *livekit.SignalResponse_TrackPublished:
		offer, err := p.publisher.CreateOffer(nil)
		if err != nil {
			return err
		}
		if err = p.publisher.SetLocalDescription(offer); err != nil {
			return err
		}
		told := &livekit.SessionDescription{Type: offer.Type.String(), Sdp: offer.SDP}
		return p.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Offer{Offer: told}})
	case *livekit.SignalResponse_Answer:
		return p.publisher.SetRemoteDescription(
			webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: m.Answer.Sdp})
	case *livekit.SignalResponse_Offer:
		err := p.listener.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: m.Offer.Sdp})
		if err != nil {
			return err
		}
		answer, err := p.listener.CreateAnswer(nil)
		if err != nil {
			return err
		}
		if err = p.listener.SetLocalDescription(answer); err != nil {
			return err
		}
		told := &livekit.SessionDescription{Type: answer.Type.String(), Sdp: answer.SDP, Id: m.Offer.Id}
		return p.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Answer{Answer: told}})
	case *livekit.SignalResponse_Trickle:
		var candidate webrtc.ICECandidateInit
		if err := json.Unmarshal([]byte(m.Trickle.CandidateInit), &candidate); err != nil {
			return err
		}
		connection := p.publisher
		if m.Trickle.Target == livekit.SignalTarget_SUBSCRIBER {
			connection = p.listener
		}
		if connection.RemoteDescription() == nil {
			// The description that follows carries the server's candidates, too.
			return nil
		}
		return connection.AddICECandidate(candidate)
	case *livekit.SignalResponse_Leave:
		return fmt.Errorf("told to leave: %s", m.Leave.Reason)
	}
	return nil
}

func (p *participant) ping(every time.Duration) {
	for range time.Tick(every) {
		request := &livekit.Ping{Timestamp: time.Now().UnixMilli()}
		if p.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_PingReq{PingReq: request}}) != nil {
			return
		}
	}
}

func (p *participant) talk() {
	words := make([]byte, payload)
	_, _ = rand.Read(words)
	for range time.Tick(frame) {
		if p.track.WriteSample(media.Sample{Data: words, Duration: frame}) == nil {
			p.counts.sent.Add(1)
		}
	}
}

func (p *participant) listen(track *webrtc.TrackRemote) {
	var last uint16
	var before time.Time
	for {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		now := time.Now()
		if before.IsZero() {
			close(p.heard)
		} else {
			// Out of order counts as lost and is taken back when it comes.
			p.counts.lost.Add(int64(int16(packet.SequenceNumber-last)) - 1)
			if now.Sub(before) > lateness {
				p.counts.late.Add(1)
			}
		}
		last, before = packet.SequenceNumber, now
		p.counts.received.Add(1)
		p.inHold.Add(1)
	}
}

// await returns nil when the channel closes in time.
func (p *participant) await(what string, done chan struct{}) error {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-done:
		return nil
	case <-timeout.C:
		if failed := p.failed.Load(); failed != nil {
			return *failed
		}
		return errors.New("not within 10 s: " + what)
	}
}

// open makes one room; how long the second participant waited for the first one's words.
func (s *server) open(room string, all *counts) ([]*participant, time.Duration, error) {
	first, err := s.join(room, "one", all)
	if err != nil {
		return nil, 0, err
	}
	if err = first.await("media path", first.connected); err != nil {
		return []*participant{first}, 0, err
	}
	dialled := time.Now()
	second, err := s.join(room, "two", all)
	if err != nil {
		return []*participant{first}, 0, err
	}
	both := []*participant{first, second}
	if err = second.await("words of the other", second.heard); err != nil {
		return both, 0, err
	}
	took := time.Since(dialled)
	return both, took, first.await("words of the other", first.heard)
}

func (s *server) more(count int, seconds float64, prefix string, all *counts) ([]*participant, map[string]any) {
	var lock sync.Mutex
	var done sync.WaitGroup
	var came []*participant
	joins, failed := []float64{}, []string{}
	for number := range count {
		done.Add(1)
		go func() {
			defer done.Done()
			time.Sleep(time.Duration(float64(number) * seconds / float64(count) * float64(time.Second)))
			both, took, err := s.open(fmt.Sprintf("%s-%d", prefix, number), all)
			lock.Lock()
			defer lock.Unlock()
			came = append(came, both...)
			if err != nil {
				failed = append(failed, err.Error())
				return
			}
			joins = append(joins, float64(took.Microseconds())/1000)
		}()
	}
	done.Wait()
	return came, map[string]any{"rooms": count, "failed": failed, "join_ms": joins}
}

func main() {
	s := &server{}
	flag.StringVar(&s.url, "url", "ws://127.0.0.1:7880", "")
	flag.StringVar(&s.key, "key", "", "")
	flag.StringVar(&s.secret, "secret", "", "")
	turn := webrtc.ICEServer{}
	relay := flag.String("turn", "", "media goes through this TURN server alone; CAs by SSL_CERT_FILE")
	flag.StringVar(&turn.Username, "turn-user", "", "")
	password := flag.String("turn-password", "", "")
	flag.Parse()
	if *relay != "" {
		turn.URLs, turn.Credential = []string{*relay}, *password
		s.way = webrtc.Configuration{
			ICEServers: []webrtc.ICEServer{turn}, ICETransportPolicy: webrtc.ICETransportPolicyRelay,
		}
	}
	engine := &webrtc.MediaEngine{}
	if err := engine.RegisterDefaultCodecs(); err != nil {
		panic(err)
	}
	settings := webrtc.SettingEngine{}
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.api = webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithSettingEngine(settings))
	all := &counts{}
	var everybody []*participant
	rooms := 0
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var count int
		var seconds float64
		var answer map[string]any
		if n, _ := fmt.Sscanf(lines.Text(), "join %d %f", &count, &seconds); n == 2 {
			came, told := s.more(count, seconds, fmt.Sprintf("room-%d", rooms), all)
			everybody, answer = append(everybody, came...), told
			rooms += count
		} else if n, _ := fmt.Sscanf(lines.Text(), "hold %f", &seconds); n == 1 {
			all.sent.Store(0)
			all.received.Store(0)
			all.lost.Store(0)
			all.late.Store(0)
			for _, each := range everybody {
				each.inHold.Store(0)
			}
			time.Sleep(time.Duration(seconds * float64(time.Second)))
			silent := 0
			for _, each := range everybody {
				if each.inHold.Load() == 0 {
					silent++
				}
			}
			answer = map[string]any{
				"rooms": rooms, "sent": all.sent.Load(), "received": all.received.Load(), "lost": all.lost.Load(),
				"late": all.late.Load(), "silent": silent,
			}
		} else {
			answer = map[string]any{"error": "no such command: " + lines.Text()}
		}
		text, _ := json.Marshal(answer)
		fmt.Println(string(text))
	}
}
