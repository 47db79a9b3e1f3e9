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

// A control adds to kardianos/service what it lacks on Windows: it registers one recovery action, and only if asked, and
// its stop does not return while the service does not stop.
type completedControl struct{ kardianos.Service }

func completed(s kardianos.Service) kardianos.Service { return completedControl{s} }

// forgetFailures is the number of seconds without a failure after which the next one counts as the first.
const forgetFailures = 3600

// recovery is what Windows does at the first, the second and every later failure.
func recovery() (actions []mgr.RecoveryAction) {
	for _, pause := range []time.Duration{5 * time.Second, 5 * time.Second, 30 * time.Second} {
		actions = append(actions, mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: pause})
	}
	return actions
}

// Install removes the service again when it fails.
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

// delayStart starts the service after those of the network, so that none must be named as a dependency. A service manager
// without that feature, such as Wine's, starts it together with the others.
func delayStart(s *mgr.Service) error {
	delayed := windowsapi.SERVICE_DELAYED_AUTO_START_INFO{IsDelayedAutoStartUp: 1}
	err := windowsapi.ChangeServiceConfig2(s.Handle, windowsapi.SERVICE_CONFIG_DELAYED_AUTO_START_INFO, (*byte)(unsafe.Pointer(&delayed)))
	if errors.Is(err, windowsapi.ERROR_INVALID_LEVEL) {
		return nil
	}
	return err
}

// Stop stops the service and waits for that, at most stopPatience. It is no error if the service does not run.
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

// Restart blocks at most as long as Stop.
func (c completedControl) Restart() error {
	if err := c.Stop(); err != nil {
		return err
	}
	return c.Start()
}

// withService opens the service with the rights of access only, so that other users than administrators may do what the
// access list of the service allows them.
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
