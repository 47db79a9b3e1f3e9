@echo off
rem Puts Hawser into %ProgramFiles%\Hawser and makes the agent a service, or brings what is there up to this version.
rem Run it as administrator. With /nostart it leaves the service stopped.
setlocal
set "TARGET=%ProgramFiles%\Hawser"
set "AGENT=%TARGET%\hawser-agent.exe"

rem A program that runs cannot be replaced.
set "THERE=1"
sc query hawser-agent >nul 2>&1
if errorlevel 1 set "THERE="
if not defined THERE goto copy
"%AGENT%" service stop
if errorlevel 1 goto failed

:copy
if not exist "%TARGET%" mkdir "%TARGET%"
for %%f in (hawser-agent.exe hawser.exe LICENSE.txt README.txt) do (
	copy /y "%~dp0%%f" "%TARGET%\%%f" >nul
	if errorlevel 1 goto failed
)
if defined THERE goto start
"%AGENT%" service install
if errorlevel 1 goto failed

:start
if /i "%~1"=="/nostart" goto done
if not exist "%ProgramData%\Hawser\identity.pem" goto enroll
"%AGENT%" service start
if errorlevel 1 goto failed
goto done

:enroll
echo Installed in %TARGET%. Give the agent its identity, then start it:
echo   cd /d "%TARGET%"
echo   hawser-agent enroll --access HOST --pin SHA256
echo   hawser-agent service start
exit /b 0

:done
echo Installed in %TARGET%.
exit /b 0

:failed
echo Not installed: see above. Run this as administrator. 1>&2
exit /b 1
