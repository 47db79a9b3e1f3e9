package service

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	kardianos "github.com/kardianos/service"
	windowsapi "golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

// A control on Windows does what kardianos/service leaves out: that registers one recovery action, and none unless asked,
// and its stop waits for ever for a service that does not stop.
type completedControl struct{ kardianos.Service }

func completed(s kardianos.Service) kardianos.Service { return completedControl{s} }

// forgetFailures is after how many seconds without a failure the next one is the first again.
const forgetFailures = 3600

// recovery is what Windows does at the first, the second and every later failure.
func recovery() (actions []mgr.RecoveryAction) {
	for _, pause := range []time.Duration{5 * time.Second, 5 * time.Second, 30 * time.Second} {
		actions = append(actions, mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: pause})
	}
	return actions
}

// Install leaves nothing behind when it fails.
func (c completedControl) Install() error {
	if err := c.Service.Install(); err != nil {
		return err
	}
	// Actions that start a service need the right to start it.
	err := withService(windowsapi.SERVICE_CHANGE_CONFIG|windowsapi.SERVICE_START, func(s *mgr.Service) error {
		if err := setRecovery(s); err != nil {
			return fmt.Errorf("set recovery actions: %w", err)
		}
		if err := delayStart(s); err != nil {
			return fmt.Errorf("set delayed start: %w", err)
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, c.Service.Uninstall())
	}
	return nil
}

func setRecovery(s *mgr.Service) error { return s.SetRecoveryActions(recovery(), forgetFailures) }

// delayStart puts the start after that of the network's services, so that none need be named as a dependency. A service
// manager that knows no such thing, as Wine's, starts it with the others.
func delayStart(s *mgr.Service) error {
	delayed := windowsapi.SERVICE_DELAYED_AUTO_START_INFO{IsDelayedAutoStartUp: 1}
	err := windowsapi.ChangeServiceConfig2(s.Handle, windowsapi.SERVICE_CONFIG_DELAYED_AUTO_START_INFO, (*byte)(unsafe.Pointer(&delayed)))
	if errors.Is(err, windowsapi.ERROR_INVALID_LEVEL) {
		return nil
	}
	return err
}

// Stop orders a stop and waits for it for at most stopPatience. A service that does not run is stopped.
func (completedControl) Stop() error {
	return withService(windowsapi.SERVICE_STOP|windowsapi.SERVICE_QUERY_STATUS, func(s *mgr.Service) error {
		_, err := s.Control(svc.Stop)
		if errors.Is(err, windowsapi.ERROR_SERVICE_NOT_ACTIVE) {
			return nil
		}
		if err != nil {
			return err
		}
		return awaitStop(func() (bool, error) {
			status, err := s.Query()
			return status.State == svc.Stopped, err
		})
	})
}

// Restart takes no longer than Stop.
func (c completedControl) Restart() error {
	if err := c.Stop(); err != nil {
		return err
	}
	return c.Start()
}

// withService opens the service with no more rights than access, so that who is no administrator may do what the
// service's own list allows.
func withService(access uint32, f func(*mgr.Service) error) error {
	manager, err := windowsapi.OpenSCManager(nil, nil, windowsapi.SC_MANAGER_CONNECT)
	if err != nil {
		return err
	}
	defer windowsapi.CloseServiceHandle(manager)
	name, err := windowsapi.UTF16PtrFromString(Name)
	if err != nil {
		return err
	}
	h, err := windowsapi.OpenService(manager, name, access)
	if err != nil {
		return err
	}
	s := &mgr.Service{Name: Name, Handle: h}
	defer s.Close()
	return f(s)
}
