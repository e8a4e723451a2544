@echo off
rem Starts Athanor. It only finds a Python; all else is in installers\ (see: gui.bat help).
setlocal
chcp 65001 >nul
set "ATHANOR_CALLER_FOLDER=%CD%"
cd /d "%~dp0"
if errorlevel 1 goto bad_folder
set "PYTHONHOME="
set "PYTHONPATH="
set "PYTHONUTF8=1"
set "PYTHON_MANAGER_AUTOMATIC_INSTALL=false"
set "FITS=import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))"

rem A double click runs cmd /c with this file's name; the command line of a console does not hold it.
set "DOUBLE_CLICK="
setlocal EnableDelayedExpansion
set "LINE=!cmdcmdline:"=!"
if not defined LINE goto in_console
if "!LINE:gui.bat=!"=="!LINE!" goto in_console
endlocal
set "DOUBLE_CLICK=1"
goto find_python
:in_console
endlocal

:find_python
rem The Store's stub of python opens the Store and ends with an error, so it never fits.
for %%V in (3.12 3.13 3.11 3.14) do call :try py -%%V
if defined FOUND goto start
call :try python
if defined FOUND goto start
call :try python3
if defined FOUND goto start
call :try "%~dp0.athanor-setup\python\python.exe"
if defined FOUND goto start

echo No Python 3.11 to 3.14 was found on this computer.
call "%~dp0installers\portable_python.bat"
call :try "%~dp0.athanor-setup\python\python.exe"
if defined FOUND goto start
echo Install Python 3.12 from python.org and start again.
set "CODE=1"
goto finish

:start
call %FOUND% "%~dp0installers" %*
set "CODE=%ERRORLEVEL%"
goto finish

:bad_folder
echo This folder cannot be entered: a network path needs a drive letter, for example by "net use".
set "CODE=1"
goto finish

:finish
if "%CODE%"=="0" goto end
if not defined DOUBLE_CLICK goto end
echo.
echo Athanor ended with code %CODE%; the lines above say why. "gui.bat doctor" in a console looks further.
pause
:end
exit /b %CODE%

rem Keep the command in FOUND if it starts a Python that fits; the first one stays. "call", since python may be a .bat.
:try
if defined FOUND exit /b 0
call %* -c "%FITS%" >nul 2>nul
if not errorlevel 1 set FOUND=%*
exit /b 0
