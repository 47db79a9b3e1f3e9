@echo off
rem Takes away the service and the programs. The identity, the configuration and the state in %ProgramData%\Hawser stay,
rem unless /purge says that they go, too: the gateway must then be enrolled again. Run it as administrator.
setlocal
set "TARGET=%ProgramFiles%\Hawser"

sc query hawser-agent >nul 2>&1
if errorlevel 1 goto programs
"%TARGET%\hawser-agent.exe" service uninstall
if errorlevel 1 goto failed

:programs
for %%f in (hawser-agent.exe hawser.exe LICENSE.txt README.txt) do if exist "%TARGET%\%%f" del /q "%TARGET%\%%f"
if exist "%TARGET%\hawser-agent.exe" goto failed
if exist "%TARGET%" rmdir "%TARGET%"
if /i not "%~1"=="/purge" goto kept
if exist "%ProgramData%\Hawser" rmdir /s /q "%ProgramData%\Hawser"
echo Uninstalled, with identity and configuration.
exit /b 0

:kept
echo Uninstalled. Identity and configuration stay in %ProgramData%\Hawser.
exit /b 0

:failed
echo Not uninstalled: see above. Run this as administrator. 1>&2
exit /b 1
