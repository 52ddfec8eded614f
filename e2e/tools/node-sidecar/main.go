// Stands in for two stock sidecars whose modules the Go module proxy does not serve everywhere: node-driver-registrar (tells the
// kubelet of a CSI driver) and, with --http-endpoint, livenessprobe (asks the driver for its health when it is asked).
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

type registrar struct {
	registration.UnimplementedRegistrationServer
	name, endpoint string
}

func (r registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: r.name, Endpoint: r.endpoint, SupportedVersions: []string{"1.0.0"},
	}, nil
}

// As the stock registrar does: ends, so that it is started again and asks again.
func (r registrar) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		log.Fatal("not registered: ", status.Error)
	}
	log.Print("registered")
	return &registration.RegistrationStatusResponse{}, nil
}

func main() {
	driver := flag.String("csi-address", "/run/csi/socket", "the driver's socket")
	endpoint := flag.String("kubelet-registration-path", "", "the same socket, as the kubelet sees it")
	health := flag.String("http-endpoint", "", "where to answer /healthz")
	flag.Parse()
	connection, err := grpc.NewClient("unix://"+*driver, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	identity := csi.NewIdentityClient(connection)
	ask := func(patience time.Duration) (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), patience)
	}
	if *health != "" {
		log.Fatal(http.ListenAndServe(*health, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asking, end := ask(time.Second)
			defer end()
			probe, err := identity.Probe(asking, &csi.ProbeRequest{})
			if err != nil || (probe.GetReady() != nil && !probe.GetReady().GetValue()) {
				http.Error(w, "not ready", http.StatusInternalServerError)
			}
		})))
	}

	asking, end := ask(30 * time.Second)
	defer end()
	info, err := identity.GetPluginInfo(asking, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		log.Fatal("the driver does not answer: ", err)
	}
	socket := "/registration/" + info.GetName() + "-reg.sock"
	_ = os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, registrar{name: info.GetName(), endpoint: *endpoint})
	log.Fatal(server.Serve(listener))
}
